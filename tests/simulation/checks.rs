//! What has to be true at the end of every simulation.

use super::{journals, tasks::thing_of, things::Count, world::World};
use crate::graph::{Operation, TaskStatus};
use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};
use std::path::Path;

pub(super) fn at_the_end(world: &World) {
    let rows = world.tables().rows.clone();
    for (id, row) in &rows {
        let state = row.state();
        if state.status() != TaskStatus::Successful {
            world.violation(format!("task {id} did not come to its end: {} {}", state.operation(), state.status()));
            continue;
        }
        if !row.record.acknowledged {
            world.violation(format!("task {id} has an outcome that its agent was not told to forget"));
        }
        if let Some(problem) = &row.record.problem {
            world.violation(format!("task {id} has a problem: {problem}"));
        }
        if !row.events.is_sorted_by_key(|entry| entry.epoch) {
            world.violation(format!("task {id} has an event of a stale coordinator"));
        }
        for (node, subtask) in state.subtasks() {
            let Some(planned) = row.record.plan.node(node) else { continue };
            let Some(thing) = thing_of(planned) else { continue };
            let Count { made, taken_back } = world.count(&thing);
            let is_there = world.identity_of(&thing).is_some();
            let as_it_should = match (state.operation(), subtask.operation) {
                // It goes with what it is part of.
                (Operation::Rollback, _) if !planned.info().undoable => made <= 1,
                (Operation::Rollback, _) => !is_there && made == taken_back,
                // Nobody knows what a skipped step left behind, but never more than one of it.
                (_, Operation::Skip) => made == taken_back + u32::from(is_there),
                _ => is_there && made == taken_back + 1,
            };
            if !as_it_should {
                world.violation(format!(
                    "task {id} is {} {}, subtask {node} {} {}: {thing} was made {made} times and taken back {taken_back} times",
                    state.operation(),
                    state.status(),
                    subtask.operation,
                    subtask.status,
                ));
            }
        }
    }
}

/// An agent that is gone has left no operation open, and accepted none of a stale coordinator.
pub(super) fn agent_at_the_end(world: &World, host: &str, state_dir: &Path) {
    journals::put_back(world, host);
    let operations: Vec<(i64, i64)> = futures_executor::block_on(async {
        let journal = SqliteConnectOptions::new().filename(state_dir.join("journal.db"));
        let mut connection = journal.connect().await.unwrap();
        sqlx::query_as("SELECT epoch, phase FROM operations ORDER BY position")
            .fetch_all(&mut connection)
            .await
            .unwrap()
    });
    if !operations.is_sorted_by_key(|(epoch, _)| *epoch) {
        world.violation(format!("{host} accepted an operation of a stale coordinator: {operations:?}"));
    }
    for (phases, what) in [(0..4, "never ended"), (4..5, "are kept although their outcomes are safe")] {
        let count = operations.iter().filter(|(_, phase)| phases.contains(phase)).count();
        if count > 0 {
            world.violation(format!("{host} has {count} operations that {what}"));
        }
    }
}
