//! What is done with agents.

pub(super) mod operate;
pub(super) mod upgrade;
