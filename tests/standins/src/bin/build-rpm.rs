//! Builds the stand-in's package and prints its path.

use oblet_standins::package::{Options, build};
use std::{
    env,
    io::{self, Write as _},
    process::ExitCode,
};

const USAGE: &str = "usage: build-rpm OBPROXY-BINARY DIRECTORY [--arch A] [--version V] [--release R]";
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

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options::new(arguments.next()?, arguments.next()?);
    while let Some(flag) = arguments.next() {
        let value = arguments.next()?;
        match flag.as_str() {
            "--arch" => options.architecture = value,
            "--version" => options.version = value,
            "--release" => options.release = value,
            _ => return None,
        }
    }
    Some(options)
}
