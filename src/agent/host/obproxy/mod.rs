//! An obproxy on this host: its launch, its life, and what is asked of it over SQL.

mod config;
mod earlier_logs;
mod failure;
mod first_start;
mod found;
mod launch;
mod log;
mod mysql;
pub(super) mod record;
mod redaction;
pub(super) mod restarts;
mod session;
mod sql;
mod start;
mod uninstall;
