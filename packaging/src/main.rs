//! `make package`'s second half: programs in, packages out.

use anyhow::Context as _;
use clap::Parser;
use oblet_packaging::{Build, Format, Glibc, Options, build};
use std::{io::Write as _, path::PathBuf};

/// Puts oblet's programs into packages.
#[derive(Debug, Parser)]
struct Arguments {
    /// Directory of the programs.
    #[arg(long)]
    binaries: PathBuf,
    /// Directory that takes the packages.
    #[arg(long)]
    out: PathBuf,
    /// Release of the packages, to be raised for each build of a version that is given away.
    #[arg(long, default_value_t = 1)]
    release: u32,
    /// Formats of the packages.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "rpm,deb")]
    format: Vec<Format>,
    /// The newest version of glibc that a program may need.
    #[arg(long, default_value = "2.17")]
    glibc: Glibc,
    /// Time in the packages, in seconds since 1970.
    #[arg(long, env = "SOURCE_DATE_EPOCH")]
    time: u32,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let options = Options {
        binaries: &arguments.binaries,
        out: &arguments.out,
        formats: &arguments.format,
        build: Build {
            version: oblet::cli::command().get_version().context("the programs tell no version")?.to_owned(),
            release: arguments.release,
            time_seconds: arguments.time,
        },
        glibc: arguments.glibc,
    };
    build(&options, |name| writeln!(std::io::stdout(), "{}", arguments.out.join(name).display()))
}
