//! Two coordinators on one store: one is taken for dead, the other takes its tasks over, and then the first wakes up with
//! everything it meant to write and to ask for.

use super::{
    LIMIT, agents, checks, coordinator,
    hosts::{Memory, SimulatedHost},
    network, run, tasks,
    traps::Within,
    world::{Answers, COORDINATOR, Line, Odds, World},
};
use crate::{coordinator::agents::AgentAddress, graph::TaskStatus};
use std::{path::Path, time::Duration};

const HOSTS: i64 = 3;
const STANDBY: &str = "standby";
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
    /// What agents answered to the first coordinator after it woke.
    awake: Answers,
}

fn run(seed: u64, cut: Cut) -> Report {
    let mut random = fastrand::Rng::with_seed(!seed);
    let world = World::new(seed, Odds::default());
    let _within = Within::new(&world);
    world.calm();
    let directory = agents::state_directory();
    let mut sim = run::simulation(seed);
    for host_id in 1..=HOSTS {
        let name = tasks::host_name(host_id);
        let carrier = SimulatedHost { world: world.clone(), name: name.clone(), memory: Memory::Looks };
        agents::add(&mut sim, &world, carrier, directory.path().join(&name));
        world.tables().add_agent(host_id, AgentAddress::new(sim.lookup(name), network::AGENT_PORT));
        let plan = tasks::plan(&mut random, u16::try_from(host_id).unwrap(), HOSTS);
        world.tables().create(plan);
    }
    coordinator::add(&mut sim, &world, COORDINATOR);
    let falls_silent = Duration::from_secs(1) + Duration::from_secs(10).mul_f64(random.f64());
    let is_replaced = falls_silent + Duration::from_secs(2).mul_f64(random.f64());
    let wakes = is_replaced + Duration::from_secs(1) + Duration::from_secs(20).mul_f64(random.f64());
    let step_until = |sim: &mut turmoil::Sim<'_>, until: Duration| {
        while sim.elapsed() < until {
            sim.step().unwrap();
        }
    };

    step_until(&mut sim, falls_silent);
    world.cut_off(COORDINATOR, true);
    for host in (1..=HOSTS).map(tasks::host_name) {
        match cut {
            Cut::Lost => sim.partition(COORDINATOR, host),
            Cut::Late => sim.hold(COORDINATOR, host),
        }
    }
    step_until(&mut sim, is_replaced);
    coordinator::add(&mut sim, &world, STANDBY);
    step_until(&mut sim, wakes);
    let before = world.answers(COORDINATOR);
    world.note_at(sim.elapsed(), COORDINATOR, "wakes");
    world.cut_off(COORDINATOR, false);
    for host in (1..=HOSTS).map(tasks::host_name) {
        match cut {
            Cut::Lost => sim.repair(COORDINATOR, host),
            Cut::Late => sim.release(COORDINATOR, host),
        }
    }
    step_until(&mut sim, wakes + AFTERMATH);
    while !world.tables().rows.values().all(|row| row.status() == TaskStatus::Successful) {
        assert!(sim.elapsed() < LIMIT, "seed {seed}: no end\n{}", world.told());
        sim.step().unwrap();
    }
    checks::at_the_end(&world);
    let after = world.answers(COORDINATOR);
    let awake = Answers { taken: after.taken - before.taken, fenced: after.fenced - before.fenced };
    for host in (1..=HOSTS).map(tasks::host_name) {
        sim.crash(host.as_str());
        let epochs = epochs(&directory.path().join(&host).join("journal.db"));
        if !epochs.is_sorted() {
            world.violation(format!("{host} accepted from a stale coordinator: {epochs:?}"));
        }
    }
    Report { record: world.take_record(), violations: world.violations(), awake }
}

/// Of the operations of an agent, in the order in which it accepted them.
fn epochs(journal: &Path) -> Vec<i64> {
    use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};
    futures_executor::block_on(async {
        let mut connection = SqliteConnectOptions::new().filename(journal).connect().await.unwrap();
        sqlx::query_scalar("SELECT epoch FROM operations ORDER BY position").fetch_all(&mut connection).await.unwrap()
    })
}

fn nothing_of_the_stale_one_counts(cut: Cut) {
    let mut fenced = 0;
    for seed in 0..12 {
        let report = run(seed, cut);
        let record: String = report.record.iter().map(|line| format!("{line}\n")).collect();
        assert!(report.violations.is_empty(), "seed {seed}: {:#?}\n{record}", report.violations);
        // What it learns late was decided before it was replaced.
        if cut == Cut::Lost {
            assert_eq!(report.awake.taken, 0, "seed {seed}\n{record}");
        }
        fenced += report.awake.fenced;
        assert_eq!(run(seed, cut).record, report.record, "seed {seed} is not the same twice");
    }
    println!("{cut:?}: {fenced} calls of the stale coordinator were refused");
    assert!(fenced > 0, "the stale coordinator asked for nothing, so nothing was shown");
}

#[test]
fn a_coordinator_that_was_cut_off_does_nothing_when_it_is_back() {
    nothing_of_the_stale_one_counts(Cut::Lost);
}

#[test]
fn calls_of_a_replaced_coordinator_that_arrive_late_do_nothing() {
    nothing_of_the_stale_one_counts(Cut::Late);
}
