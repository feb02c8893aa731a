//! The agent as a thing that is managed: its process, its service, its upgrade.

pub(super) mod process;
mod service;
pub(super) mod upgrade;
