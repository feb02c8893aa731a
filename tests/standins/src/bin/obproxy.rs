//! Stands in for obproxy.

use oblet_standins::obproxy::{self, Options, USAGE};
use std::{
    env,
    error::Error,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode, Stdio},
};

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be left to read this; the exit code says the same.
            let _ = writeln!(io::stderr(), "obproxy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let options = Options::parse(arguments.clone())?;
    if options.help {
        writeln!(io::stdout(), "{USAGE}")?;
    } else if options.version {
        writeln!(io::stdout(), "obproxy (OceanBase {}) stand-in", obproxy::version())?;
    } else if options.foreground {
        obproxy::run(options)?;
    } else {
        // The daemon is a child in a process group of its own; without a pipe to anyone it outlives its caller.
        Command::new(env::current_exe()?)
            .args(&arguments)
            .arg("-N")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
    }
    Ok(())
}
