//! A password from the terminal, which is not echoed.

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::io::{self, BufRead, Read as _, Write as _};
use zeroize::Zeroizing;

const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const ERASE: [u8; 2] = [0x08, 0x7f];
const ERASE_LINE: u8 = 0x15;

/// Asks on stderr, and answers what is typed up to the end of the line; None if Ctrl-C ended it.
pub fn ask_hidden(question: &str) -> io::Result<Option<Zeroizing<String>>> {
    let silent = Silent::new()?;
    // Only once nothing is echoed any more: who waits for the question types at once.
    say(question);
    let typed = read_hidden(&mut io::stdin().lock());
    drop(silent);
    say("\n");
    let Some(bytes) = typed? else { return Ok(None) };
    let text = std::str::from_utf8(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some(Zeroizing::new(text.to_owned())))
}

/// Writes to stderr at once. Nobody is left to read it if that is closed.
pub fn say(text: &str) {
    let mut stderr = io::stderr();
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}

/// A terminal that passes on each key and shows none. Ctrl-C is a key as well: as a signal it would end the program and
/// leave the shell without echo.
struct Silent {
    before: Termios,
}

impl Silent {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &silent)?;
        Ok(Self { before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

/// Keys up to the end of the line; None if they were interrupted.
fn read_hidden(keys: &mut impl BufRead) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut typed = Zeroizing::new(Vec::with_capacity(128));
    for key in keys.bytes() {
        match key? {
            INTERRUPT => return Ok(None),
            b'\n' | b'\r' | END => break,
            ERASE_LINE => typed.clear(),
            key if ERASE.contains(&key) => {
                // A character, not a byte of one.
                while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            key => typed.push(key),
        }
    }
    Ok(Some(typed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_edit_are_no_part_of_a_password() {
        let typed = |keys: &str| read_hidden(&mut keys.as_bytes()).unwrap().map(|typed| typed.to_vec());
        assert_eq!(typed("s3cret\nrest"), Some(b"s3cret".to_vec()));
        assert_eq!(typed("wrong\u{15}s3\u{e9}\u{7f}cret\r"), Some(b"s3cret".to_vec()));
        assert_eq!(typed("\u{7f}a\u{4}"), Some(b"a".to_vec()));
        assert_eq!(typed("s3\u{3}"), None);
    }
}
