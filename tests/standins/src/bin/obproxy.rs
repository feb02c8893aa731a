//! Stands in for obproxy.

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    oblet_standins::obproxy::run(&arguments)
}
