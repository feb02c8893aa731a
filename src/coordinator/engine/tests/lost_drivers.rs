//! Tasks that nobody drives: those whose maker went away before it woke them, and those whose driver panicked.

use super::{
    Lab, RETENTION, issue,
    takeover::{NothingToDo, at_rest, chain, create, open},
};
use crate::{
    agent::runner::simulated::Behaviour,
    coordinator::{
        agents::{AgentAddress, AgentPool},
        engine::{
            Engine, EngineMetrics, EngineParts, NamedSecret, PreparationError, SqlTaskStore, TaskStore, Unwritten,
            Write, Written, housekeeping,
        },
        secrets::Vault,
        store::{
            Store, StoreError,
            task::{self, LoadError, LoadedTask, LogPosition, TaskId},
        },
    },
    graph::{NodeIndex, TaskStatus},
    operations::TaskPlan,
    steps::{Finish, Step, values::PackageRef},
    tls::Role,
};
use futures_util::future::BoxFuture;
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A store that makes those who load a task panic so often.
struct Panicking {
    store: SqlTaskStore,
    left: AtomicU32,
}

impl TaskStore for Panicking {
    fn load(&self, id: TaskId) -> BoxFuture<'_, Result<LoadedTask, LoadError>> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(left.is_err(), "the driver panics");
        self.store.load(id)
    }

    fn next_epoch(&self) -> BoxFuture<'_, Result<i64, StoreError>> {
        self.store.next_epoch()
    }

    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<TaskId>, StoreError>> {
        self.store.unfinished()
    }

    fn running(&self, epoch: i64) -> BoxFuture<'_, Result<Vec<TaskId>, StoreError>> {
        self.store.running(epoch)
    }

    fn unacknowledged(&self) -> BoxFuture<'_, Result<Vec<TaskId>, StoreError>> {
        self.store.unacknowledged()
    }

    fn commit<'a>(&'a self, group: &'a [Write]) -> BoxFuture<'a, Result<Vec<Written>, Unwritten>> {
        self.store.commit(group)
    }

    fn log_position(&self, id: TaskId, node: NodeIndex, run: u32) -> BoxFuture<'_, Result<LogPosition, StoreError>> {
        self.store.log_position(id, node, run)
    }

    fn agent_address(&self, host_id: i64) -> BoxFuture<'_, Result<Option<AgentAddress>, StoreError>> {
        self.store.agent_address(host_id)
    }

    fn secrets<'a>(
        &'a self,
        plan: &'a TaskPlan,
        names: &'static [&'static str],
    ) -> BoxFuture<'a, Result<Vec<NamedSecret>, PreparationError>> {
        self.store.secrets(plan, names)
    }

    fn package_path<'a>(&'a self, package: &'a PackageRef) -> BoxFuture<'a, Result<Option<PathBuf>, StoreError>> {
        self.store.package_path(package)
    }

    fn expire(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.expire()
    }
}

pub(super) async fn start(directory: &Path, store: &Store, panics: u32) -> (Engine, DropGuard) {
    let shutdown = CancellationToken::new();
    let store = SqlTaskStore {
        store: store.clone(),
        vault: Arc::new(Vault::load_or_create(&directory.join("secret.key")).unwrap()),
        packages_dir: directory.into(),
        retention: tokio::sync::watch::channel(RETENTION).1,
    };
    let parts = EngineParts {
        running_tasks: 1000,
        tasks: Arc::new(Panicking { store, left: panics.into() }),
        local: Arc::new(NothingToDo),
        agents: Arc::new(AgentPool::new(&issue(directory, Role::Coordinator)).unwrap()),
        metrics: EngineMetrics::register(&prometheus::Registry::new()).unwrap(),
        shutdown: shutdown.clone(),
        fatal: CancellationToken::new(),
    };
    (Engine::start(parts).await.unwrap(), shutdown.drop_guard())
}

fn plan() -> TaskPlan {
    chain(vec![Step::from(Finish {})])
}

#[tokio::test]
async fn the_sweep_drives_a_task_that_was_committed_and_never_woken() {
    let lab = Lab::new(Behaviour::Succeed).await;
    let store = open(lab.directory.path()).await;
    let (engine, _shutdown) = start(lab.directory.path(), &store, 0).await;
    let task = create(&store, &plan(), false).await;
    housekeeping::sweep(&engine).await;
    assert_eq!(at_rest(&store, task).await, TaskStatus::Successful);
    assert_eq!(engine.shared.metrics.swept.get(), 1);
    housekeeping::sweep(&engine).await;
    assert_eq!(engine.shared.metrics.swept.get(), 1, "it has come to rest");
}

#[tokio::test]
async fn a_task_whose_driver_panicked_is_driven_again_and_given_up_after_some_times() {
    let lab = Lab::new(Behaviour::Succeed).await;
    let store = open(lab.directory.path()).await;
    for (panics, expected) in [(2, TaskStatus::Successful), (3, TaskStatus::Failed)] {
        let task = create(&store, &plan(), false).await;
        // The first driver is that of the start.
        let (engine, _shutdown) = start(lab.directory.path(), &store, panics).await;
        let sweeps = async {
            loop {
                housekeeping::sweep(&engine).await;
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let status = tokio::select! {
            status = at_rest(&store, task) => status,
            () = sweeps => unreachable!("sweeps have no end"),
        };
        assert_eq!(status, expected);
        let mut connection = store.readers().acquire().await.unwrap();
        let problem = task::get(&mut connection, task).await.unwrap().unwrap().problem;
        assert_eq!(problem.is_some(), expected == TaskStatus::Failed, "{problem:?}");
    }
}
