//! oblet manages OceanBase hosts.
//!
//! The rooms, from the bottom up: [`graph`] is the pure core, [`steps`] and [`operations`] say what can be done,
//! [`agent`] does it on a host, [`coordinator`] drives it, [`api`] and [`cli`] face the operator.

pub mod agent;
pub mod api;
mod blocking;
pub mod cli;
pub mod clock;
pub mod config;
pub mod coordinator;
pub mod deb;
pub mod descriptors;
mod doorkeeper;
mod files;
pub mod graph;
pub mod operations;
pub mod rpc;
pub mod service_manager;
#[cfg(test)]
#[path = "../tests/simulation/mod.rs"]
mod simulation;
pub mod steps;
pub mod telemetry;
pub mod terminal;
pub mod tls;
