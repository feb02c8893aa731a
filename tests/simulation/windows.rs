//! The windows W1 to W6: at both sides of every write and call of every kind of step, in both directions, the program
//! dies, the write fails, or it takes half a minute. Whatever it is, the task ends and each thing was made once or never.

use super::{
    LIMIT, agents, checks, coordinator,
    faults::Faults,
    perils::{Defect, Odds},
    run, tasks,
    traps::{Action, ONLY_TASK, Point, Side, Trap, Within},
    world::{COORDINATOR, World},
};
use crate::{
    graph::{Direction, Event, NodeIndex},
    steps::{Policy, Step},
};

const NODE: NodeIndex = NodeIndex(1);

/// Where work of this kind can be met.
fn points(step: &Step, direction: Direction) -> Vec<Point> {
    use Point::{Accept, Acknowledge, Acknowledged, Dispatch, Finish, Outcome, Running, Starting, Submit};
    let is_asked = direction == Direction::Execute || step.info().undoable;
    match step {
        Step::Agent(step) if is_asked && step.info().policy == Policy::Pure => vec![Dispatch, Submit, Outcome],
        Step::Agent(_) if is_asked => {
            let mut all = vec![Dispatch, Submit, Accept, Running, Finish, Outcome, Acknowledge, Acknowledged];
            // An undo makes nothing.
            all.extend((direction == Direction::Execute).then_some(Starting));
            all
        }
        Step::Agent(_) | Step::Coordinator(_) => vec![Dispatch, Outcome],
    }
}

/// What the operator does with a task that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Retry,
    Rollback,
}

/// Runs the step into the trap, and everything to its end; answers what must not have happened.
fn spring(step: &Step, trap: Trap, decision: Decision, defect: Option<Defect>) -> Vec<String> {
    let seed = 1;
    // As every real crash does.
    let odds = Odds { wal_stays: 1.0, ..Odds::default() };
    let world = World::with(seed, odds, defect);
    let _within = Within::new(&world);
    world.calm();
    world.set_trap(Some(trap));
    if trap.direction == Direction::Undo {
        world.let_finish_fail();
    }
    if decision == Decision::Rollback {
        world.give_up();
    }
    let directory = agents::state_directory();
    let mut sim = run::simulation(seed);
    agents::add(&mut sim, &world, 1, directory.path());
    coordinator::add(&mut sim, &world, COORDINATOR);
    assert_eq!(world.tables().create(tasks::between(step.clone())).unwrap(), ONLY_TASK);
    let mut faults = Faults::none(1);
    let is_over = || world.tables().rows[&ONLY_TASK].is_over();
    while !is_over() {
        assert!(sim.elapsed() < LIMIT, "{} {trap:?}: no end\n{}", tasks::kind(step), world.told());
        sim.step().unwrap();
        faults.step(&mut sim, &world, directory.path());
    }
    checks::at_the_end(&world);
    assert_eq!(world.trap(), None, "{} {trap:?} did not spring\n{}", tasks::kind(step), world.told());
    let failures = |event: &Event| matches!(event, Event::Failed { .. } | Event::UndoFailed { .. });
    let failed = world.tables().rows[&ONLY_TASK].events.iter().filter(|entry| failures(&entry.event)).count();
    if trap.action == Action::Crash {
        // The last step that fails by the script is the only one: a crash costs nobody a decision.
        let by_script = usize::from(trap.direction == Direction::Undo);
        assert_eq!(failed, by_script, "{} {trap:?}\n{}", tasks::kind(step), world.told());
    }
    world.violations()
}

fn all(direction: Direction, action: Action, decisions: &[Decision]) {
    for step in tasks::kinds() {
        for point in points(&step, direction) {
            for side in [Side::Before, Side::After] {
                for decision in decisions {
                    let trap = Trap { node: NODE, direction, point, side, action };
                    let violations = spring(&step, trap, *decision, None);
                    assert!(violations.is_empty(), "{} {trap:?} {decision:?}: {violations:#?}", tasks::kind(&step));
                }
            }
        }
    }
}

#[test]
fn a_program_that_dies_at_any_write_of_a_step_costs_nothing() {
    all(Direction::Execute, Action::Crash, &[Decision::Retry]);
}

#[test]
fn a_write_or_call_of_a_step_that_fails_ends_in_success_or_a_clean_rollback() {
    all(Direction::Execute, Action::Error, &[Decision::Retry, Decision::Rollback]);
}

#[test]
fn a_write_or_call_of_a_step_that_takes_long_ends_in_success_or_a_clean_rollback() {
    all(Direction::Execute, Action::Slow, &[Decision::Retry, Decision::Rollback]);
}

#[test]
fn a_program_that_dies_at_any_write_of_an_undo_costs_nothing() {
    all(Direction::Undo, Action::Crash, &[Decision::Rollback]);
}

#[test]
fn a_write_or_call_of_an_undo_that_fails_ends_in_a_clean_rollback() {
    all(Direction::Undo, Action::Error, &[Decision::Rollback]);
}

#[test]
fn a_write_or_call_of_an_undo_that_takes_long_ends_in_a_clean_rollback() {
    all(Direction::Undo, Action::Slow, &[Decision::Rollback]);
}

/// The checks find a defect that is there: whatever was made before the crash must have been looked up after it.
#[test]
fn a_defect_is_caught_behind_every_effect() {
    for defect in [Defect::HostBegins, Defect::AgentForgets] {
        for step in tasks::kinds() {
            if !points(&step, Direction::Execute).contains(&Point::Running) {
                continue;
            }
            let (point, side) = (Point::Finish, Side::Before);
            let trap = Trap { node: NODE, direction: Direction::Execute, point, side, action: Action::Crash };
            let violations = spring(&step, trap, Decision::Retry, Some(defect));
            assert!(!violations.is_empty(), "{} {defect:?}", tasks::kind(&step));
        }
    }
}
