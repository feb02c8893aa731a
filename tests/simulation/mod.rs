//! The real engine and real agents in one thread: network, clock, randomness and crashes come from a seed.
//!
//! What is real: the engine, the gRPC client and server with the HTTP/2 below them, the agent's runner and its journal
//! in SQLite. What is simulated: TCP (turmoil), time, the hosts that the steps change, and the coordinator's store.

mod agents;
mod checks;
mod coordinator;
mod faults;
mod hosts;
mod network;
mod run;
mod store;
mod takeover;
mod tasks;
mod traps;
mod windows;
mod world;

pub(crate) use traps::{Lost, Point, Side, answered, asks, journal};

use hosts::Memory;
use std::{ops::Range, time::Duration};

/// Whether this code runs on a host of a simulation.
pub(crate) fn is_running() -> bool {
    turmoil::sim_elapsed().is_some()
}

/// Where the clock of every simulation begins: 2026-01-01, since 1970.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
const TICK: Duration = Duration::from_millis(40);
/// Longest life of a simulation, in its own time.
const LIMIT: Duration = Duration::from_secs(1800);

/// Runs every seed twice: both runs are the same to the letter, and nothing happened that must not.
fn seeds(range: Range<u64>) {
    let only: Option<u64> = std::env::var("OBLET_SEED").ok().map(|seed| seed.parse().expect("OBLET_SEED is a number"));
    for seed in range.filter(|seed| only.is_none_or(|only| only == *seed)) {
        let first = run::run(seed, Memory::Looks);
        let second = run::run(seed, Memory::Looks);
        let differs = first.record.iter().zip(&second.record).position(|(one, two)| one != two);
        let differs = differs.or((first.record.len() != second.record.len()).then_some(first.record.len()));
        if differs.is_none() && first.violations.is_empty() && only.is_none() {
            continue;
        }
        for line in &first.record {
            println!("{line}");
        }
        if let Some(position) = differs {
            println!("SECOND");
            for line in &second.record[position.saturating_sub(5)..(position + 8).min(second.record.len())] {
                println!("{line}");
            }
        }
        if let Some(position) = differs {
            println!("the runs part at {position}: {:?} {:?}", first.record.get(position), second.record.get(position));
        }
        println!("{:#?}", first.violations);
        assert!(differs.is_none() && first.violations.is_empty(), "seed {seed} alone: OBLET_SEED={seed}");
    }
}

macro_rules! whatever_breaks_every_step_is_done_once_or_never {
    ($($name:ident: $seeds:expr),+ $(,)?) => {
        $(#[test]
        fn $name() {
            seeds($seeds);
        })+
    };
}

/// In ranges, so that the runner of the tests has something to spread over the processors.
mod whatever_breaks_every_step_is_done_once_or_never {
    use super::seeds;

    whatever_breaks_every_step_is_done_once_or_never! {
        seeds_0_to_49: 0..50,
        seeds_50_to_99: 50..100,
        seeds_100_to_149: 100..150,
        seeds_150_to_199: 150..200,
    }
}

/// The checks find a defect that is there: in so many of 30 seeds at least.
fn is_caught(defect: Memory, at_least: usize) {
    let caught = (0..30).filter(|seed| !run::run(*seed, defect).violations.is_empty()).count();
    println!("{defect:?} is caught in {caught} of 30 seeds");
    assert!(caught >= at_least, "caught in {caught} of 30 seeds");
}

#[test]
fn a_host_that_does_not_look_up_what_it_began_is_caught() {
    is_caught(Memory::Begins, 10);
}

#[test]
fn an_agent_that_forgets_its_journal_is_caught() {
    is_caught(Memory::Forgets, 10);
}
