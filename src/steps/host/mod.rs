//! Steps about a host.

pub(super) mod check;
pub(super) mod check_commands;
pub(super) mod check_processes;
pub(super) mod prepare;
pub(super) mod unreserve;
pub(super) mod update_status;
