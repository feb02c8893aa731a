//! Builds the stand-in's package and prints its path.

use oblet_standins::package::{Options, build};
use std::{
    env,
    io::{self, Write as _},
    process::ExitCode,
};

const USAGE: &str = "usage: build-rpm OBPROXY-BINARY DIRECTORY [--modern] [--name N] [--arch A] [--version V]
                 [--release R] [--requires CAPABILITY]... [--fault NAME=VALUE]...
--modern builds obproxy-ce 4.3.1.0 instead of obproxy 1.9.1.1; the other options change what it chose.";
const BAD_USAGE: u8 = 64;

fn main() -> ExitCode {
    let Some(options) = parse(env::args().skip(1)) else {
        let _ = writeln!(io::stderr(), "{USAGE}");
        return ExitCode::from(BAD_USAGE);
    };
    match build(&options) {
        Ok(path) => {
            let _ = writeln!(io::stdout(), "{}", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "build-rpm: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: impl Iterator<Item = String>) -> Option<Options> {
    let (modern, rest): (Vec<String>, Vec<String>) = arguments.partition(|argument| argument == "--modern");
    let mut rest = rest.into_iter();
    let (binary, directory) = (rest.next()?, rest.next()?);
    let mut options =
        if modern.is_empty() { Options::new(binary, directory) } else { Options::modern(binary, directory) };
    while let Some(flag) = rest.next() {
        let value = rest.next()?;
        match flag.as_str() {
            "--name" => options.name = value,
            "--arch" => options.architecture = value,
            "--version" => options.version = value,
            "--release" => options.release = value,
            "--requires" => options.requires.push(value),
            "--fault" => {
                let (name, value) = value.split_once('=')?;
                options.faults.push((name.to_owned(), value.to_owned()));
            }
            _ => return None,
        }
    }
    Some(options)
}
