//! rpm and deb packages of oblet's programs, both from one description.

mod contents;
mod deb;
mod documents;
mod elf;
mod manual;
mod package;
mod rpm;
mod scriptlets;

pub use contents::{AGENT_EXAMPLE, COORDINATOR_EXAMPLE};
pub use documents::DOCUMENTS;
pub use elf::Glibc;
pub use package::{Build, Format};

use flate2::{Compression, GzBuilder};
use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

/// What to package, and where to.
#[derive(Debug)]
pub struct Options<'a> {
    /// Directory of `oblet-agent`, `oblet-coordinator` and `oblet`.
    pub binaries: &'a Path,
    /// Made if it is missing; packages of the same name are replaced.
    pub out: &'a Path,
    pub formats: &'a [Format],
    pub build: Build,
    /// No program may need a newer glibc.
    pub glibc: Glibc,
}

/// Writes all packages; tells each file's name as it is there.
pub fn build(options: &Options<'_>, mut tell: impl FnMut(&str) -> io::Result<()>) -> anyhow::Result<()> {
    fs::create_dir_all(options.out)?;
    for format in options.formats {
        for package in contents::packages(options.binaries, options.glibc, *format, &options.build)? {
            let name = match format {
                Format::Rpm => rpm::write(&package, &options.build, options.out)?,
                Format::Deb => deb::write(&package, &options.build, options.out)?,
            };
            tell(&name)?;
        }
    }
    Ok(())
}

/// Carries no name and no time, so that the same content gives the same bytes.
fn gzip(content: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    encoder.finish()
}
