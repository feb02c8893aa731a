//! The coordinator: keeps state, builds nothing by itself, drives tasks through agents.

pub mod agents;
pub mod config;
pub mod engine;
pub mod host_watch;
pub mod secrets;
pub mod store;
