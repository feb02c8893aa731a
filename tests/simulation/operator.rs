//! An operator before an engine, with the clients he uses.

use super::{
    requests,
    world::{COORDINATOR, World},
};
use crate::{
    coordinator::{engine::Engine, store::task::TaskId},
    graph::{Command, NodeIndex, Operation, TaskStatus},
    rpc::v1,
};
use std::{sync::Arc, time::Duration};

const LOOKS_EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Operator<'a> {
    world: &'a Arc<World>,
    engine: &'a Engine,
    /// Streams that nobody reads.
    unread: Vec<tonic::Streaming<v1::WatchResponse>>,
}

impl<'a> Operator<'a> {
    pub(super) fn new(world: &'a Arc<World>, engine: &'a Engine) -> Self {
        Self { world, engine, unread: Vec::new() }
    }

    pub(super) async fn work(mut self) -> ! {
        let _unread = self.engine.commits();
        loop {
            requests::send(self.world, self.engine).await;
            let tasks: Vec<TaskId> = self.world.tables().rows.keys().copied().collect();
            for id in tasks {
                self.look(id).await;
            }
            tokio::time::sleep(LOOKS_EVERY).await;
        }
    }

    /// Wakes the driver of a new task, as the API does, and takes a decision now and then.
    async fn look(&mut self, id: TaskId) {
        let Self { world, engine, .. } = *self;
        let record = world.tables().rows[&id].record.clone();
        let is_failed = record.status == TaskStatus::Failed;
        if record.status == TaskStatus::Running {
            if world.is_left_alone(id) {
                return;
            }
            drop(engine.wake(id));
        }
        // Also while a decision is under way, here or at another coordinator.
        if is_failed && world.happens(|odds| odds.releases) {
            let released = world.tables().release_locks(id);
            world.note(COORDINATOR, format!("task {id}: operator releases {} locks", released.len()));
        }
        if world.happens(|odds| odds.clients / 10.0) {
            self.watch(id).await;
        }
        let is_calm = world.is_calm();
        let command = if is_failed && (is_calm || world.happens(|odds| odds.decides)) {
            Some(finish(world, id, record.operation))
        } else {
            (!is_calm).then(|| whim(world, record.plan.nodes.len())).flatten()
        };
        if let Some(command) = command {
            requests::decide(world, engine, id, command).await;
        }
    }

    /// Opens a stream of what the task has in flight, over the connection that the engine uses, and never reads it.
    async fn watch(&mut self, id: TaskId) {
        let asked = {
            let tables = self.world.tables();
            let row = &tables.rows[&id];
            row.in_flight().and_then(|(node, direction)| {
                let node = row.record.plan.node(node)?;
                let operation_id = node.operation_id(direction).to_string();
                Some((tables.agent(node.host_id?)?, v1::OperationKey { operation_id, attempt: 1 }))
            })
        };
        let Some((address, key)) = asked else { return };
        let request = v1::WatchRequest { key: Some(key), after_sequence: 0, log_offset: 0 };
        let agent = self.engine.agents().agent(address);
        if let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, agent.watch(request)).await {
            self.unread.push(stream);
        }
    }
}

/// Leads a task that came to rest to one of its two ends.
fn finish(world: &World, id: TaskId, operation: Operation) -> Command {
    if operation == Operation::Rollback || world.is_given_up(id) { Command::Rollback } else { Command::Retry }
}

/// What an operator does who does not look at the state first.
fn whim(world: &World, nodes: usize) -> Option<Command> {
    if !world.chance(0.12) {
        return None;
    }
    let node = NodeIndex(u32::try_from(world.below(nodes)).unwrap());
    if world.happens(|odds| odds.cancels) {
        return Some(if world.chance(0.4) { Command::Cancel } else { Command::CancelSubtask(node) });
    }
    Some(match world.below(9) {
        0..4 => Command::Retry,
        4 | 5 => Command::Rollback,
        6 | 7 => Command::RetrySubtask(node),
        _ => Command::SkipSubtask(node),
    })
}
