//! The stand-in keeps to `docs/facts/obproxy.md`, seen from outside. A module per group of facts.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests are tests too")]

mod command_line;
mod directories;
mod exit;
mod faults;
mod listeners;
mod login;
mod manager;
mod metrics;
mod place;
#[path = "../../../support/ports.rs"]
mod ports;
mod sql;
mod sql_login;
