//! Numbers of labs, which are parts of their addresses: a lab that lives has one for itself on this machine.

use std::fs::File;

/// Those of tests; a lab raised by hand has number 0 and the check of a real obproxy 230, unless they are told another.
const NUMBERS: std::ops::Range<u8> = 130..220;

/// A number that is this process's own for as long as it holds the file.
pub(crate) fn own() -> (u8, File) {
    let reserve = |number: u8| {
        let path = std::env::temp_dir().join(format!("oblet-lab-{number}.lock"));
        let file = File::options().create(true).append(true).open(path).ok()?;
        file.try_lock().ok().map(|()| (number, file))
    };
    NUMBERS.clone().find_map(reserve).unwrap_or_else(|| panic!("other labs have all numbers"))
}
