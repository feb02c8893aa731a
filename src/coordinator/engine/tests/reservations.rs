//! What a task has reserved is released while somebody decides that it runs again, here or at another coordinator.

use super::{
    Lab, issue,
    takeover::{at_rest, chain, open, start},
};
use crate::{
    agent::runner::simulated::Behaviour,
    coordinator::{
        agents::AgentPool,
        engine::{CommandError, Engine},
        store::{
            Store, locks,
            task::{self, Draft, Origin, TaskId},
        },
    },
    graph::{Command, Direction, Effect, Event, Failure, NodeIndex, TaskState, TaskStatus},
    operations::{ObjectKind, ObjectLock, TaskPlan},
    steps::{Finish, Step},
    tls::Role,
};
use std::path::Path;
use tokio_util::sync::CancellationToken;

const LOCK: ObjectLock = ObjectLock { kind: ObjectKind::Host, id: 7, exclusive: true };

/// Makes a task that has reserved the host; its only step has failed.
async fn failed(store: &Store) -> TaskId {
    let failure = Failure::example(Effect::None);
    let (node, attempt) = (NodeIndex(0), 1);
    let task = made(store).await;
    let mut transaction = store.begin().await.unwrap();
    let mut state = task::load(&mut transaction, task).await.unwrap().state;
    let mut draft = Draft::new(&state);
    for event in
        [Event::Dispatched { node, attempt, direction: Direction::Execute }, Event::Failed { node, attempt, failure }]
    {
        draft.apply(&mut state, event).unwrap();
    }
    task::append(&mut transaction, &draft.finish((task, 0, 1), &state, 1)).await.unwrap();
    transaction.commit().await.unwrap();
    task
}

/// The same before anything of it began.
async fn made(store: &Store) -> TaskId {
    let plan = TaskPlan { locks: vec![LOCK], ..chain(vec![Step::from(Finish {})]) };
    let state = TaskState::new(plan.graph().unwrap());
    let origin = Origin { creator: "admin", executor: "here", trace_id: "t", epoch: 0 };
    let mut transaction = store.begin().await.unwrap();
    let task = task::create(&mut transaction, &[(&plan, &state)], &origin).await.unwrap()[0].id;
    transaction.commit().await.unwrap();
    task
}

/// What the operator of any coordinator does.
async fn release(store: &Store, task: TaskId) {
    let mut transaction = store.begin().await.unwrap();
    assert_eq!(locks::release(&mut transaction, task).await.unwrap(), [LOCK]);
    transaction.commit().await.unwrap();
}

async fn holder(store: &Store) -> Option<TaskId> {
    let mut connection = store.readers().acquire().await.unwrap();
    locks::holder(&mut connection, &LOCK).await.unwrap().map(|holder| holder.task)
}

async fn status_and_problem(store: &Store, task: TaskId) -> (TaskStatus, Option<String>) {
    let mut connection = store.readers().acquire().await.unwrap();
    let record = task::get(&mut connection, task).await.unwrap().unwrap();
    (record.status, record.problem)
}

async fn coordinator(directory: &Path, store: &Store) -> (Engine, CancellationToken) {
    let pool = AgentPool::new(&issue(directory, Role::Coordinator)).unwrap();
    let shutdown = CancellationToken::new();
    (start(directory, store.clone(), pool, shutdown.clone()).await, shutdown)
}

#[tokio::test]
async fn a_task_whose_reservations_were_released_under_a_decision_stays_at_rest() {
    let lab = Lab::new(Behaviour::Succeed).await;
    let directory = lab.directory.path();
    let store = open(directory).await;
    let (engine, shutdown) = coordinator(directory, &store).await;
    let task = failed(&store).await;
    // The request has found nobody in the way, and is on its way to the engine.
    release(&store, task).await;
    let other = made(&store).await;
    for command in [Command::Retry, Command::Rollback] {
        let refused = engine.command(task, command, "admin").await;
        assert!(matches!(&refused, Err(CommandError::Reserved(holder)) if holder.task == other), "{refused:?}");
        assert_eq!(status_and_problem(&store, task).await, (TaskStatus::Failed, None));
        assert_eq!(holder(&store).await, Some(other));
    }

    drop(engine.wake(other));
    assert_eq!(at_rest(&store, other).await, TaskStatus::Successful);
    engine.command(task, Command::Retry, "admin").await.unwrap();
    assert_eq!(at_rest(&store, task).await, TaskStatus::Successful);
    assert_eq!(holder(&store).await, None);
    shutdown.cancel();
    engine.stopped().await;
}

#[tokio::test]
async fn a_coordinator_that_lost_a_task_does_not_take_back_what_was_released_at_another() {
    let lab = Lab::new(Behaviour::Succeed).await;
    let directory = lab.directory.path();
    let store = open(directory).await;
    let (first, ends_first) = coordinator(directory, &store).await;
    let (second, ends_second) = coordinator(directory, &store).await;
    let task = failed(&store).await;
    // It belongs to the second from here on.
    let refused = second.command(task, Command::Cancel, "admin").await;
    assert!(matches!(refused, Err(CommandError::Refused(_))), "{refused:?}");
    release(&store, task).await;
    let refused = first.command(task, Command::Retry, "admin").await;
    assert!(matches!(refused, Err(CommandError::Undriven)), "{refused:?}");
    assert_eq!(status_and_problem(&store, task).await, (TaskStatus::Failed, None));
    assert_eq!(holder(&store).await, None);

    second.command(task, Command::Retry, "admin").await.unwrap();
    assert_eq!(at_rest(&store, task).await, TaskStatus::Successful);
    for (engine, shutdown) in [(first, ends_first), (second, ends_second)] {
        shutdown.cancel();
        engine.stopped().await;
    }
}
