//! Questions on the terminal. Questions go to stderr, answers come from stdin.

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use secrecy::SecretString;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use zeroize::Zeroizing;

use super::error::CliError;

const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const ERASE: [u8; 2] = [0x08, 0x7f];
const ERASE_LINE: u8 = 0x15;

/// Whether somebody is there to answer.
pub(crate) fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// A line, without the white space around it.
pub(crate) fn line(question: &str) -> Result<String, CliError> {
    ask(question);
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(CliError::Input)?;
    Ok(answer.trim().to_owned())
}

/// A password, which is not echoed.
pub(crate) fn password(question: &str) -> Result<SecretString, CliError> {
    let silent = Silent::new()?;
    ask(question);
    let typed = read_password(&mut io::stdin().lock());
    drop(silent);
    ask("\n");
    match typed.map_err(CliError::Input)? {
        Some(bytes) => match std::str::from_utf8(&bytes) {
            Ok(password) => Ok(password.into()),
            Err(error) => Err(CliError::Input(io::Error::new(io::ErrorKind::InvalidData, error))),
        },
        None => Err(CliError::Interrupted { next: "nothing was changed".into() }),
    }
}

/// Nobody is left to be asked if stderr is closed.
fn ask(question: &str) {
    let mut stderr = io::stderr();
    let _ = stderr.write_all(question.as_bytes());
    let _ = stderr.flush();
}

/// A terminal that passes on each key and shows none. Ctrl-C is a key as well: as a signal it would end the program and
/// leave the shell without echo.
struct Silent {
    before: Termios,
}

impl Silent {
    fn new() -> Result<Self, CliError> {
        let before = tcgetattr(io::stdin()).map_err(|errno| CliError::Input(errno.into()))?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &silent).map_err(|errno| CliError::Input(errno.into()))?;
        Ok(Self { before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

/// Keys up to the end of the line; None if they were interrupted.
fn read_password(keys: &mut impl io::BufRead) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
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
        let typed = |keys: &str| read_password(&mut keys.as_bytes()).unwrap().map(|typed| typed.to_vec());
        assert_eq!(typed("s3cret\nrest"), Some(b"s3cret".to_vec()));
        assert_eq!(typed("wrong\u{15}s3\u{e9}\u{7f}cret\r"), Some(b"s3cret".to_vec()));
        assert_eq!(typed("\u{7f}a\u{4}"), Some(b"a".to_vec()));
        assert_eq!(typed("s3\u{3}"), None);
    }
}
