//! Processes that outlive the agent: who starts them, how they are found again, and how they are stopped.

pub(super) mod choice;
pub(super) mod direct;
pub(super) mod identity;
pub(super) mod runs;
pub(super) mod secluded;
pub mod shim;
pub(super) mod shimmed;
pub(super) mod supervisor;
pub(super) mod systemd;
pub mod unit_helper;
