//! Steps about the agent as a thing that is managed.

pub(super) mod finish_operation;
pub(super) mod finish_upgrade;
pub(super) mod operation;
pub(super) mod prepare_operation;
pub(super) mod prepare_upgrade;
pub(super) mod refresh_config;
pub(super) mod restart;
pub(super) mod stop;
pub(super) mod upgrade;

/// One operation at a time changes what the agent looks after.
pub(super) const CONFIG_LOCK: &str = "config";
/// One operation at a time changes the agent. The package managers guard their databases by themselves.
const LOCK: &str = "agent";
