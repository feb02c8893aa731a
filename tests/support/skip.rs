//! Tests that cannot run on this machine. Nothing is skipped in silence: where everything is checked, a skip fails.

use std::{fs::OpenOptions, io::Write as _, path::Path, thread};

/// Notes that the test which calls this is not run, and why; `make test` prints the notes at its end. Fails with `CI` set.
pub(crate) fn skip(why: &str) {
    let thread = thread::current();
    let line = format!("SKIPPED: {}: {}\n", thread.name().unwrap_or("a test"), why.trim());
    assert!(std::env::var_os("CI").is_none(), "{line}with CI set every test has to run");
    #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
    {
        print!("{line}");
    }
    // On a host of the lab there is no such directory, and whoever runs the tests there reads what they print.
    let notes = Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped");
    if let Ok(mut notes) = OpenOptions::new().create(true).append(true).open(notes) {
        // One write, so that lines of tests that run at the same time do not mix.
        let _ = notes.write_all(line.as_bytes());
    }
}
