//! Requests of clients, and what the API does with them between its handlers and the store.
//!
//!  1. A request that makes a task has a key, and its client sends it again until it is answered, also after it was refused.
//!  2. Whatever commits and what follows from it go through the API's own [`whole`].
//!  3. A decision is written down before it is carried out; if it was, it is carried out or refused, unless the
//!     coordinator crashes.

use super::{
    perils::Defect,
    world::{COORDINATOR, World},
};
use crate::{
    api::whole,
    coordinator::{
        engine::Engine,
        store::{locks::Holder, task::TaskId},
    },
    graph::Command,
    operations::TaskPlan,
};
use std::{sync::Arc, time::Duration};

const PATIENCE: Duration = Duration::from_secs(10);
/// Of a client that leaves.
const LITTLE_PATIENCE: Duration = Duration::from_millis(40);
/// A request waits until others have written, and then for the disk.
const SLOWEST_COMMIT: Duration = Duration::from_secs(1);
/// Until a decision that was written down comes to the engine.
const SLOWEST_DECISION: Duration = Duration::from_secs(8);
/// How long a client waits that was refused, or had no answer.
const ASKS_AGAIN: Duration = Duration::from_secs(2);

/// What a client asks for.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) key: u16,
    pub(super) plan: TaskPlan,
    pub(super) due: Duration,
}

/// How long a client waits.
fn patience(world: &World, leaves: bool) -> Duration {
    if leaves { world.delay(LITTLE_PATIENCE) } else { PATIENCE }
}

/// How often a client asks for the same, and whether it leaves early.
fn whims(world: &World) -> (usize, bool) {
    let leaves = world.happens(|odds| odds.clients);
    (1 + usize::from(world.happens(|odds| odds.clients)), leaves)
}

/// Sends what is due.
pub(super) async fn send(world: &Arc<World>, engine: &Engine) {
    for request in world.requests() {
        if turmoil::sim_elapsed().unwrap() < request.due {
            continue;
        }
        let (times, leaves) = whims(world);
        for _ in 0..times {
            let created = tokio::time::timeout(patience(world, leaves), create(world, engine, request.clone())).await;
            let (told, is_over) = match created {
                Ok(Ok(id)) => (format!("task {id} is created"), true),
                Ok(Err(holder)) => {
                    (format!("a request is refused: {} is reserved by task {}", holder.lock, holder.task), false)
                }
                Err(_) => ("a request has no answer".to_owned(), false),
            };
            world.note(COORDINATOR, told);
            world.change_requests(|all| {
                all.retain(|other| !is_over || other.key != request.key);
                let again = all.iter_mut().filter(|other| other.key == request.key);
                again.for_each(|other| other.due = turmoil::sim_elapsed().unwrap() + ASKS_AGAIN);
            });
        }
    }
}

async fn create(world: &Arc<World>, engine: &Engine, request: Request) -> Result<TaskId, Holder> {
    let (committing, waking, engine) = (Arc::clone(world), Arc::clone(world), engine.clone());
    let commit = async move {
        tokio::time::sleep(committing.delay(SLOWEST_COMMIT)).await;
        let id = match committing.has(Defect::KeysIgnored) {
            true => committing.tables().create(request.plan)?,
            false => committing.tables().create_once(request.key, request.plan)?,
        };
        tokio::time::sleep(committing.delay(SLOWEST_COMMIT)).await;
        Ok(id)
    };
    let follow = |id| async move {
        // The coordinator may be gone before it wakes anybody.
        if waking.happens(|odds| odds.clients) {
            waking.leave_alone(id);
        } else {
            drop(engine.wake(id));
        }
        id
    };
    whole(commit, follow).await.unwrap()
}

/// Carries out an operator's decision.
pub(super) async fn decide(world: &Arc<World>, engine: &Engine, id: TaskId, command: Command) {
    let (times, leaves) = whims(world);
    for _ in 0..times {
        let decided = carry_out(world, engine, id, command);
        let answer = match tokio::time::timeout(patience(world, leaves), decided).await {
            Ok(Ok(answer)) => answer.to_owned(),
            Ok(Err(holder)) => format!("task {} has what it needs", holder.task),
            Err(_) => "no answer".to_owned(),
        };
        world.note(COORDINATOR, format!("task {id}: operator says {command:?}: {answer}"));
    }
}

async fn carry_out(world: &Arc<World>, engine: &Engine, id: TaskId, command: Command) -> Result<&'static str, Holder> {
    let runs = !matches!(command, Command::Cancel | Command::CancelSubtask(_));
    let (world, engine) = (Arc::clone(world), engine.clone());
    let commit = async move {
        tokio::time::sleep(world.delay(SLOWEST_COMMIT)).await;
        if runs && world.has(Defect::ReservedEarly) {
            world.tables().retake_locks(id)?;
        }
        if runs && let Some(holder) = world.tables().obstacle(id) {
            return Err(holder);
        }
        let written_down = WrittenDown { world: Arc::clone(&world), task: id, command, answered: false };
        tokio::time::sleep(world.delay(SLOWEST_COMMIT)).await;
        Ok(written_down)
    };
    let follow = move |written_down: WrittenDown| async move {
        // Operators elsewhere act meanwhile.
        if written_down.world.happens(|odds| odds.slow_decisions) {
            tokio::time::sleep(written_down.world.delay(SLOWEST_DECISION)).await;
        }
        let answer = engine.command(id, command, "operator").await;
        written_down.answer();
        if answer.is_ok() { "done" } else { "refused" }
    };
    whole(commit, follow).await.unwrap()
}

/// A decision in the audit log.
struct WrittenDown {
    world: Arc<World>,
    task: TaskId,
    command: Command,
    answered: bool,
}

impl WrittenDown {
    fn answer(mut self) {
        self.answered = true;
    }
}

impl Drop for WrittenDown {
    fn drop(&mut self) {
        let Self { world, task, command, answered } = self;
        if !*answered && !world.is_crashing() {
            world.violation(format!("task {task}: {command:?} is in the audit log, and was not carried out"));
        }
    }
}
