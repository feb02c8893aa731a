//! What a program needs from the host it is installed on, read from the program itself.

use anyhow::{Context as _, bail, ensure};
use goblin::elf::{Elf, header};
use std::{collections::BTreeSet, fmt, fs, path::Path};

/// Libraries that every supported system has since its first release: glibc's own and gcc's unwinder.
const LIBRARIES: [&str; 9] = [
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libutil.so.1",
];

/// `2.17`; ordered as versions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Glibc(pub u16, pub u16);

impl std::str::FromStr for Glibc {
    type Err = String;

    /// The third number, of GLIBC_2.2.5 alone, makes no difference to any limit.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut numbers = text.splitn(3, '.').map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(Self(major, minor)),
            _ => Err(format!("{text:?} is not a version of glibc such as 2.17")),
        }
    }
}

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Machine {
    X86_64,
    Aarch64,
}

impl Machine {
    pub(crate) fn rpm_name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    pub(crate) fn debian_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }
}

/// A program and what it asks of the dynamic linker.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
    pub(crate) machine: Machine,
    pub(crate) libraries: BTreeSet<String>,
    /// (library, version of its symbols), such as (libc.so.6, GLIBC_2.17).
    pub(crate) versions: BTreeSet<(String, String)>,
    /// The oldest glibc that has all of its symbols.
    pub(crate) glibc: Glibc,
}

impl Program {
    /// Refuses a program that would not start on a system with glibc `limit` and no libraries of its own.
    pub(crate) fn read(directory: &Path, name: &str, limit: Glibc) -> anyhow::Result<Self> {
        let path = directory.join(name);
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(name, content, limit).with_context(|| format!("{} cannot be packaged", path.display()))
    }

    fn parse(name: &str, content: Vec<u8>, limit: Glibc) -> anyhow::Result<Self> {
        let elf = Elf::parse(&content).context("it is not an ELF program")?;
        let machine = match elf.header.e_machine {
            header::EM_X86_64 => Machine::X86_64,
            header::EM_AARCH64 => Machine::Aarch64,
            other => bail!("it is for machine {other}, which has no packages"),
        };
        let libraries: BTreeSet<_> = elf.libraries.iter().map(|name| (*name).to_owned()).collect();
        let strange: Vec<_> = libraries.iter().filter(|name| !LIBRARIES.contains(&name.as_str())).collect();
        ensure!(strange.is_empty(), "it needs libraries that not every system has: {strange:?}");
        let mut versions = BTreeSet::new();
        for file in elf.verneed.iter().flat_map(|section| section.iter()) {
            let library = elf.dynstrtab.get_at(file.vn_file).context("a needed library has no name")?;
            for version in file.iter() {
                let version = elf.dynstrtab.get_at(version.vna_name).context("a needed version has no name")?;
                versions.insert((library.to_owned(), version.to_owned()));
            }
        }
        let glibc = oldest_glibc(&versions)?;
        ensure!(glibc <= limit, "it needs glibc {glibc}, above {limit}: {:?}", above(&versions, limit));
        Ok(Self { name: name.to_owned(), machine, libraries, versions, glibc, content })
    }
}

fn oldest_glibc(versions: &BTreeSet<(String, String)>) -> anyhow::Result<Glibc> {
    let mut oldest = Glibc(2, 0);
    for (_, version) in versions {
        if let Some(number) = version.strip_prefix("GLIBC_") {
            // GLIBC_PRIVATE is no number: it binds to one very build of glibc.
            oldest = oldest.max(number.parse().map_err(anyhow::Error::msg)?);
        }
    }
    Ok(oldest)
}

fn above(versions: &BTreeSet<(String, String)>, limit: Glibc) -> Vec<&str> {
    let names = versions.iter().map(|(_, version)| version.as_str());
    let number = |name: &str| name.strip_prefix("GLIBC_").and_then(|number| number.parse::<Glibc>().ok());
    names.filter(|name| number(name).is_some_and(|needed| needed > limit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Vec<u8> {
        fs::read("/proc/self/exe").unwrap()
    }

    #[test]
    fn a_program_tells_what_it_needs() {
        let program = Program::parse("own", own(), Glibc(2, 999)).unwrap();
        assert!(program.libraries.contains("libc.so.6"), "{:?}", program.libraries);
        assert!(program.versions.contains(&("libc.so.6".into(), format!("GLIBC_{}", program.glibc))));
    }

    #[test]
    fn a_program_that_needs_a_newer_glibc_is_refused() {
        let told = format!("{:#}", Program::parse("own", own(), Glibc(2, 2)).unwrap_err());
        assert!(told.contains("above 2.2") && told.contains("GLIBC_2."), "{told}");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(Program::parse("script", b"#!/bin/sh\n".to_vec(), Glibc(2, 17)).is_err());
    }

    #[test]
    fn private_symbols_of_glibc_are_refused() {
        let versions = BTreeSet::from([("libc.so.6".to_owned(), "GLIBC_PRIVATE".to_owned())]);
        assert!(oldest_glibc(&versions).is_err());
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let parse = |text: &str| text.parse::<Glibc>().unwrap();
        assert!(parse("2.2.5") < parse("2.17") && parse("2.17") > parse("2.9"));
        assert!("2".parse::<Glibc>().is_err());
    }
}
