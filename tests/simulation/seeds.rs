//! Seeds: of the faults, of the delays, of the tasks and of the operator's whims.

use super::{
    hosts::Memory,
    run::{Report, run},
};
use std::ops::Range;

/// Runs this seed alone and prints its record.
const ONE: &str = "OBLET_SEED";
/// Runs as many seeds as ever, from this one on.
const FIRST: &str = "OBLET_FIRST_SEED";

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

fn every(seeds: Range<u64>) {
    let first = number(FIRST).unwrap_or(0);
    match number(ONE) {
        None => seeds.for_each(|seed| holds(first + seed)),
        Some(seed) if seeds.start == 0 => {
            holds(seed);
            run(seed, Memory::Looks).record.iter().for_each(|line| println!("{line}"));
        }
        // Another test runs it.
        Some(_) => {}
    }
}

/// Nothing happened that must not, and everything happens again in the same way.
fn holds(seed: u64) {
    let Report { record, violations } = run(seed, Memory::Looks);
    let again = run(seed, Memory::Looks).record;
    let parted = (0..record.len().max(again.len())).find(|line| record.get(*line) != again.get(*line));
    if violations.is_empty() && parted.is_none() {
        return;
    }
    for (number, line) in record.iter().enumerate() {
        println!("{line}");
        if parted == Some(number) {
            println!("{:>11}{}", "or: ", again.get(number).map(ToString::to_string).unwrap_or_default());
        }
    }
    panic!("seed {seed}: {violations:#?}\nalone: {ONE}={seed} cargo test --lib seeds_0 -- --nocapture");
}

/// In ranges, so that the runner of the tests has something to spread over the processors.
mod whatever_breaks_every_step_is_done_once_or_never {
    use super::every;

    #[test]
    fn seeds_0_to_24() {
        every(0..25);
    }

    #[test]
    fn seeds_25_to_49() {
        every(25..50);
    }

    #[test]
    fn seeds_50_to_74() {
        every(50..75);
    }

    #[test]
    fn seeds_75_to_99() {
        every(75..100);
    }

    #[test]
    fn seeds_100_to_124() {
        every(100..125);
    }

    #[test]
    fn seeds_125_to_149() {
        every(125..150);
    }

    #[test]
    fn seeds_150_to_174() {
        every(150..175);
    }

    #[test]
    fn seeds_175_to_199() {
        every(175..200);
    }
}

const WITH_DEFECT: u64 = 20;
const AT_LEAST: usize = 5;

/// The checks find a defect that is there, in a good share of the seeds.
fn is_caught(defect: Memory) {
    let caught = (0..WITH_DEFECT).filter(|seed| !run(*seed, defect).violations.is_empty()).count();
    println!("{defect:?}: caught in {caught} of {WITH_DEFECT} seeds");
    assert!(caught >= AT_LEAST, "caught in {caught} of {WITH_DEFECT} seeds");
}

#[test]
fn a_host_that_does_not_look_up_what_it_began_is_caught() {
    is_caught(Memory::Begins);
}

#[test]
fn an_agent_that_forgets_its_journal_is_caught() {
    is_caught(Memory::Forgets);
}
