//! The coordinator: keeps state, builds nothing by itself, drives tasks through agents.

mod address;
pub mod agents;
pub(crate) mod channel;
pub mod config;
pub mod connection;
pub mod engine;
pub mod enrolment;
#[cfg(test)]
mod fake_agent;
pub mod host_watch;
pub mod local;
pub mod network;
pub mod offline;
mod quiet;
pub mod renewal;
pub mod secrets;
pub mod store;
pub mod trust;
