//! Two coordinators on one store: one is taken for dead, the other takes its tasks over, and then the first wakes up with
//! everything it meant to write and to ask for.

use super::{
    LIMIT, agents, checks, coordinator,
    faults::Faults,
    perils::Odds,
    rows::Row,
    run, tasks,
    traps::Within,
    world::{COORDINATOR, Line, STANDBY, World},
};
use std::time::Duration;

const SEEDS: u64 = 8;
const HOSTS: i64 = 3;
const TASKS: usize = 3;
/// Long enough for steps to run out of time meanwhile, so that it cancels them.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
/// What the first coordinator has time for after it woke.
const AFTERMATH: Duration = Duration::from_secs(35);

/// What becomes of the messages between the first coordinator and the agents meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Lost,
    Late,
}

struct Report {
    record: Vec<Line>,
    violations: Vec<String>,
    /// Calls of the first coordinator that were refused: those that it made after it woke, and those that came late.
    fenced: usize,
}

fn hosts() -> impl Iterator<Item = String> {
    (1..=HOSTS).map(tasks::host_name)
}

fn run(seed: u64, cut: Cut) -> Report {
    let mut random = fastrand::Rng::with_seed(!seed);
    let world = World::new(seed, Odds::default());
    let _within = Within::new(&world);
    world.calm();
    let directory = agents::state_directory();
    let mut sim = run::simulation(seed);
    agents::add(&mut sim, &world, HOSTS, directory.path());
    // Those that another stands in the way of are left out.
    for plan in (0..).map(|number| tasks::plan(&mut random, number, HOSTS)) {
        drop(world.tables().create(plan));
        if world.tables().rows.len() == TASKS {
            break;
        }
    }
    coordinator::add(&mut sim, &world, COORDINATOR);
    let falls_silent = Duration::from_secs(1) + Duration::from_secs(10).mul_f64(random.f64());
    let is_replaced = falls_silent + Duration::from_secs(2).mul_f64(random.f64());
    let wakes = is_replaced + Duration::from_secs(1) + LONGEST_SILENCE.mul_f64(random.f64());
    let step_until = |sim: &mut turmoil::Sim<'_>, until: Duration| {
        while sim.elapsed() < until {
            sim.step().unwrap();
        }
    };

    step_until(&mut sim, falls_silent);
    world.cut_off(Some(COORDINATOR));
    for host in hosts() {
        match cut {
            Cut::Lost => sim.partition(COORDINATOR, host),
            Cut::Late => sim.hold(COORDINATOR, host),
        }
    }
    step_until(&mut sim, is_replaced);
    coordinator::add(&mut sim, &world, STANDBY);
    step_until(&mut sim, wakes);
    let woke_at = sim.elapsed();
    world.note_at(woke_at, COORDINATOR, "wakes");
    world.cut_off(None);
    for host in hosts() {
        match cut {
            Cut::Lost => sim.repair(COORDINATOR, host),
            Cut::Late => sim.release(COORDINATOR, host),
        }
    }
    step_until(&mut sim, wakes + AFTERMATH);
    while !world.tables().rows.values().all(Row::is_over) {
        assert!(sim.elapsed() < LIMIT, "seed {seed}: no end\n{}", world.told());
        sim.step().unwrap();
    }
    checks::at_the_end(&world);
    let (taken, fenced) = world.taken_and_fenced(COORDINATOR, woke_at);
    if taken > 0 {
        world.violation(format!("agents took {taken} calls of the stale coordinator"));
    }
    let mut faults = Faults::none(HOSTS);
    for host in hosts() {
        faults.crash(&mut sim, &host, &world, directory.path());
        checks::agent_at_the_end(&world, &host, &directory.path().join(&host));
    }
    let late = if cut == Cut::Late { world.taken_and_fenced(COORDINATOR, falls_silent).1 } else { fenced };
    Report { record: world.take_record(), violations: world.violations(), fenced: late }
}

fn nothing_of_the_stale_one_counts(cut: Cut) {
    let mut fenced = 0;
    for seed in 0..SEEDS {
        let report = run(seed, cut);
        let record: String = report.record.iter().map(|line| format!("{line}\n")).collect();
        assert!(report.violations.is_empty(), "seed {seed}: {:#?}\n{record}", report.violations);
        fenced += report.fenced;
        assert_eq!(run(seed, cut).record, report.record, "seed {seed} is not the same twice");
    }
    println!("{cut:?}: {fenced} calls of the stale coordinator were refused");
    assert!(fenced as u64 >= SEEDS, "the stale coordinator asked for little, so little was shown");
}

#[test]
fn a_coordinator_that_was_cut_off_does_nothing_when_it_is_back() {
    nothing_of_the_stale_one_counts(Cut::Lost);
}

#[test]
fn calls_of_a_replaced_coordinator_that_arrive_late_do_nothing() {
    nothing_of_the_stale_one_counts(Cut::Late);
}
