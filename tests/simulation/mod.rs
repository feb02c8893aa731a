//! The real engine and real agents in one thread: network, clock, randomness and crashes come from a seed.
//!
//! What is real: the engine, the gRPC client and server with the HTTP/2 below them, the agent's runner and its journal
//! in SQLite. What is simulated: TCP (turmoil), time, the hosts that the steps change, and the coordinator's store.

mod agents;
mod driver;
mod hosts;
mod network;
mod steps;
mod world;

use std::time::Duration;

/// Whether this code runs on a host of a simulation.
pub(crate) fn is_running() -> bool {
    turmoil::sim_elapsed().is_some()
}

/// Where the clock of every simulation begins: 2026-01-01, in seconds since 1970.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
const TICK: Duration = Duration::from_millis(10);
/// Longest life of a simulation in its own time.
const LIMIT: Duration = Duration::from_secs(3600);

fn simulation<'a>(seed: u64) -> turmoil::Sim<'a> {
    // The backoff of the coordinator takes its jitter from here.
    fastrand::seed(seed);
    turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(std::time::UNIX_EPOCH + EPOCH)
        .tick_duration(TICK)
        .simulation_duration(LIMIT)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(50))
        .build()
}
