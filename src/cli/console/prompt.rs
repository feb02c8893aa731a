//! Questions on the terminal. Questions go to stderr, answers come from stdin.

use secrecy::SecretString;
use std::io::{self, BufRead as _, IsTerminal as _};

use super::error::CliError;
use crate::terminal;

/// Whether somebody is there to answer.
pub(crate) fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// A line, without the white space around it.
pub(crate) fn line(question: &str) -> Result<String, CliError> {
    terminal::say(question);
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(CliError::Input)?;
    Ok(answer.trim().to_owned())
}

/// A password, which is not echoed.
pub(crate) fn password(question: &str) -> Result<SecretString, CliError> {
    match terminal::ask_hidden(question).map_err(CliError::Input)? {
        Some(password) => Ok(password.as_str().into()),
        None => Err(CliError::Interrupted { next: "nothing was changed".into() }),
    }
}
