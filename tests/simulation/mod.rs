//! The real engine and real agents in one thread: network, clock, randomness and crashes come from a seed.
//!
//! What is real: the engine, the gRPC client and server with the HTTP/2 below them, the agent's runner and its journal
//! in SQLite. What is simulated: TCP (turmoil), time, the hosts that the steps change, and the coordinator's store.
//! What is checked, and how a seed is run again, stands in `docs/simulation.md`.

mod agents;
mod checks;
mod coordinator;
mod differential;
mod faults;
mod hosts;
mod journals;
mod network;
mod operator;
mod packages;
mod perils;
mod requests;
mod rows;
mod run;
mod seeds;
mod store;
mod tables;
mod takeover;
mod tasks;
mod things;
mod traps;
mod windows;
mod wishes;
mod world;

pub(crate) use traps::{
    Lost, Point, Side, acknowledges, answered, asks, drops_with_its_client, journal, now_micros, received, submits,
    takes_any_digest,
};

use std::time::Duration;

/// Whether this code runs on a host of a simulation.
pub(crate) fn is_running() -> bool {
    turmoil::sim_elapsed().is_some()
}

/// Where the clock of every simulation begins: 2026-01-01, since 1970.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
const TICK: Duration = Duration::from_millis(40);
/// Longest life of a simulation, in its own time.
const LIMIT: Duration = Duration::from_secs(1800);
