//! Seeds: of the faults, of the delays, of the tasks and of the operator's whims.

use super::{
    perils::{Defect, Peril, Perils},
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
            run(seed, Perils::All, None).record.iter().for_each(|line| println!("{line}"));
        }
        // Another test runs it.
        Some(_) => {}
    }
}

/// Nothing happened that must not, and everything happens again in the same way.
fn holds(seed: u64) {
    let Report { record, violations } = run(seed, Perils::All, None);
    let again = run(seed, Perils::All, None).record;
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

/// How many seeds show a defect that is there.
fn caught(seeds: u64, perils: Perils, defect: Defect) -> usize {
    let caught = (0..seeds).filter(|seed| !run(*seed, perils, Some(defect)).violations.is_empty()).count();
    println!("{defect:?}: caught in {caught} of {seeds} seeds with {perils:?}");
    caught
}

#[test]
fn a_host_that_does_not_look_up_what_it_began_is_caught() {
    assert!(caught(WITH_DEFECT, Perils::All, Defect::HostBegins) >= AT_LEAST);
}

#[test]
fn an_agent_that_forgets_its_journal_is_caught() {
    assert!(caught(WITH_DEFECT, Perils::All, Defect::AgentForgets) >= AT_LEAST);
}

/// A fault is worth its time if it shows a defect that nothing shows without it.
mod each_fault_shows_a_defect_that_stays_hidden_without_it {
    use super::*;

    /// The search ends with the first that shows the defect.
    const MOST_SEEDS: u64 = 24;
    const WITHOUT: u64 = 4;

    fn shows(peril: Peril, defect: Defect) {
        let finds = |seed: &u64| !run(*seed, Perils::Only(peril), Some(defect)).violations.is_empty();
        let found = (0..MOST_SEEDS).find(finds);
        println!("{defect:?}: found with {peril:?} in seed {found:?}");
        assert!(found.is_some(), "{peril:?} shows nothing of {defect:?}");
        assert_eq!(caught(WITHOUT, Perils::None, defect), 0, "{defect:?} shows without {peril:?}");
    }

    #[test]
    fn reads_that_fail() {
        shows(Peril::Reads, Defect::LogFromBegin);
    }

    #[test]
    fn crashes_in_an_undo() {
        shows(Peril::Undos, Defect::UndoesAgain);
    }

    #[test]
    fn reservations_that_are_released() {
        shows(Peril::Releases, Defect::NotReserved);
    }

    #[test]
    fn partitions_in_one_direction() {
        shows(Peril::OneWay, Defect::FreshKeys);
    }

    #[test]
    fn connections_that_are_reset() {
        shows(Peril::Resets, Defect::FreshKeys);
    }

    #[test]
    fn clocks_that_are_set() {
        shows(Peril::Clocks, Defect::EpochsOfClock);
    }

    #[test]
    fn clients_that_leave() {
        shows(Peril::Clients, Defect::NoSweep);
    }

    #[test]
    fn clients_that_leave_before_what_they_decided_is_carried_out() {
        shows(Peril::Clients, Defect::DropsWithClient);
    }

    #[test]
    fn clients_that_ask_again() {
        shows(Peril::Clients, Defect::KeysIgnored);
    }

    #[test]
    fn packages_that_are_damaged() {
        shows(Peril::Packages, Defect::WholeIsDamaged);
    }

    #[test]
    fn packages_that_are_damaged_before_they_are_checked() {
        shows(Peril::Packages, Defect::AnyDigest);
    }

    #[test]
    fn write_ahead_logs_that_stay() {
        shows(Peril::Wal, Defect::WalIgnored);
        // The same crashes, after which the journals are closed.
        assert_eq!(caught(WITHOUT, Perils::Only(Peril::Packages), Defect::WalIgnored), 0);
    }

    #[test]
    fn reservations_that_are_released_at_another_coordinator() {
        shows(Peril::Rivals, Defect::ReservedEarly);
        // With one operator, nobody comes between.
        assert_eq!(caught(WITHOUT, Perils::Only(Peril::Releases), Defect::ReservedEarly), 0);
    }

    #[test]
    fn a_second_coordinator() {
        shows(Peril::Standby, Defect::AnyOwner);
    }
}
