//! An obproxy on this host: its launch, its life, and what is asked of it over SQL.

pub(super) mod config;
pub(super) mod launch;
mod sql;
pub(super) mod start;
