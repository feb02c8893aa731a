//! Packages: what is installed, and how one comes and goes.

pub(in crate::agent) mod content;
pub(super) mod file;
pub(super) mod install;
pub(super) mod ours;
pub(super) mod rpm_database;
mod written;
