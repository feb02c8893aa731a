//! What a package is, whatever its format.

use crate::{elf::Program, scriptlets::Service};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Rpm,
    Deb,
}

/// One package, described once; [`crate::rpm`] and [`crate::deb`] write it down.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) summary: &'static str,
    /// Lines of at most 79 characters.
    pub(crate) description: &'static str,
    pub(crate) programs: Vec<Program>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) service: Option<Service>,
    /// Packages that the Debian package asks for beside the libraries of its programs.
    pub(crate) debian_depends: &'static [&'static str],
    /// Packages without which the program runs but cannot do all of its work.
    pub(crate) debian_recommends: &'static [&'static str],
    /// The same for rpm, as names or as paths of programs; rpm before 4.12 ignores them.
    pub(crate) rpm_recommends: &'static [&'static str],
}

/// Everything belongs to root: a package with a user of its own makes that user only after its files are in place.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Absolute.
    pub(crate) path: String,
    pub(crate) mode: u16,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// Removed with the package if nothing else is in it.
    Directory,
    File(Vec<u8>),
    /// What the administrator changed outlives upgrades.
    Configuration(Vec<u8>),
    Documentation(Vec<u8>),
    License(Vec<u8>),
}

impl Kind {
    /// None for a directory.
    pub(crate) fn content(&self) -> Option<&[u8]> {
        match self {
            Self::Directory => None,
            Self::File(content)
            | Self::Configuration(content)
            | Self::Documentation(content)
            | Self::License(content) => Some(content),
        }
    }
}

/// What tells one build of the same packages from another.
#[derive(Debug, Clone)]
pub struct Build {
    pub version: String,
    pub release: u32,
    /// Of everything that carries a time, so that the same programs give the same packages; seconds since 1970.
    pub time_seconds: u32,
}
