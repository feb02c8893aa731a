//! What is looked at before anything is changed: commands, processes, room for an instance, the host itself.

pub(super) mod commands;
mod host;
pub(super) mod instance;
pub(super) mod processes;
