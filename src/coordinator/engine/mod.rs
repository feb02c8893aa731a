//! The engine: drives every task to its end, whatever crashes on the way.
//!
//!  1. What is to be done is decided by the pure planner; what happened is appended to the journal before anything
//!     follows from it.
//!  2. A dispatch is committed before the work is handed out. At start, whatever was handed out and not answered is
//!     asked for again under the same key (window W1), and an outcome is acknowledged only after it is committed (W5).
//!  3. Each task has its own driver, so that one bad task, or one unreachable host, stalls no other.
//!  4. Work per task and per host is bounded.

mod attempt;
mod driver;
mod journal;
mod local;
mod log;
#[cfg(test)]
mod tests;
mod waits;

use super::{
    agents::AgentPool,
    secrets::Vault,
    store::{
        Store, StoreError,
        tasks::{self, LoadError, TaskId},
    },
};
use crate::graph::{Command, NodeIndex, Refusal};
use driver::Driver;
use journal::Journal;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
pub use waits::Wait;
use waits::Waits;

/// Subtasks of one task that run at a time; OCP's engine has the same number.
const MAX_RUNNING_PER_TASK: usize = 10;
/// Agent steps that run at a time on one host, over all tasks.
const MAX_RUNNING_PER_HOST: usize = 4;
const COMMAND_QUEUE: usize = 16;

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the task cannot be taken up")]
    Load(#[from] LoadError),
    #[error("the coordinator is shutting down")]
    ShuttingDown,
}

/// A decision of an operator on its way to the driver.
struct Order {
    command: Command,
    by: String,
    reply: oneshot::Sender<Result<(), Refusal>>,
}

/// What all drivers share.
struct Shared {
    store: Store,
    vault: Arc<Vault>,
    agents: Arc<AgentPool>,
    packages_dir: PathBuf,
    journal: Journal,
    epoch: i64,
    hosts: Mutex<HashMap<i64, Arc<Semaphore>>>,
    waits: Arc<Waits>,
    shutdown: CancellationToken,
}

impl Shared {
    fn host_permits(&self, host_id: i64) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        // Permits that nobody holds are those of a host at rest.
        hosts.retain(|id, permits| *id == host_id || Arc::strong_count(permits) > 1);
        Arc::clone(hosts.entry(host_id).or_insert_with(|| Arc::new(Semaphore::new(MAX_RUNNING_PER_HOST))))
    }
}

/// What the engine is made of.
pub struct EngineParts {
    pub store: Store,
    pub vault: Arc<Vault>,
    pub agents: Arc<AgentPool>,
    pub packages_dir: PathBuf,
    /// Drivers stop where they are; what they handed out is asked for again at the next start.
    pub shutdown: CancellationToken,
    /// Cancelled by the engine when the store fails for good.
    pub fatal: CancellationToken,
}

/// Handle of the engine; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    drivers: Arc<Mutex<HashMap<TaskId, mpsc::Sender<Order>>>>,
    tracker: TaskTracker,
    closing: CancellationToken,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Engine {
    /// Takes a new epoch and goes on with every unfinished task.
    pub async fn start(parts: EngineParts) -> Result<Self, StoreError> {
        let epoch = tasks::next_epoch(&parts.store).await?;
        let unfinished = tasks::unfinished(parts.store.readers()).await?;
        let tracker = TaskTracker::new();
        let closing = CancellationToken::new();
        let (journal, writer) = Journal::start(parts.store.clone(), closing.clone(), parts.fatal);
        let shared = Arc::new(Shared {
            store: parts.store,
            vault: parts.vault,
            agents: parts.agents,
            packages_dir: parts.packages_dir,
            journal,
            epoch,
            hosts: Mutex::new(HashMap::new()),
            waits: Arc::default(),
            shutdown: parts.shutdown,
        });
        let writer = Arc::new(Mutex::new(Some(writer)));
        let engine = Self { shared, drivers: Arc::default(), tracker, closing, writer };
        tracing::info!(epoch, tasks = unfinished.len(), "taking up unfinished tasks");
        for id in unfinished {
            engine.wake(id);
        }
        Ok(engine)
    }

    pub fn epoch(&self) -> i64 {
        self.shared.epoch
    }

    /// Grows with every commit of events or logs.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.shared.journal.commits()
    }

    /// What the subtasks of a task wait for at the moment, as far as they do.
    pub fn waits(&self, id: TaskId) -> HashMap<NodeIndex, Wait> {
        self.shared.waits.of(id)
    }

    pub fn agents(&self) -> &Arc<AgentPool> {
        &self.shared.agents
    }

    /// Starts to drive a task that was committed to the store; harmless if it is driven already.
    pub fn wake(&self, id: TaskId) {
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.entry(id).or_insert_with(|| self.spawn_driver(id));
    }

    /// Carries out an operator's decision; returns once it is in the journal.
    pub async fn command(&self, id: TaskId, command: Command, by: &str) -> Result<(), CommandError> {
        loop {
            let (reply, answer) = oneshot::channel();
            let order = Order { command, by: by.to_owned(), reply };
            let driver = {
                let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
                drivers.entry(id).or_insert_with(|| self.spawn_driver(id)).clone()
            };
            if driver.send(order).await.is_ok()
                && let Ok(result) = answer.await
            {
                return Ok(result?);
            }
            // The driver ended with the order in its queue: the task came to rest, or cannot be taken up.
            if self.shared.shutdown.is_cancelled() {
                return Err(CommandError::ShuttingDown);
            }
            tasks::claim(&self.shared.store, id, self.shared.epoch).await?;
        }
    }

    /// Waits until every driver has stopped, then ends the journal's writer.
    pub async fn stopped(&self) {
        self.tracker.close();
        self.tracker.wait().await;
        self.closing.cancel();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "the journal's writer broke off");
        }
    }

    fn spawn_driver(&self, id: TaskId) -> mpsc::Sender<Order> {
        let (orders, receiver) = mpsc::channel(COMMAND_QUEUE);
        let shared = Arc::clone(&self.shared);
        let place = Place { drivers: Arc::clone(&self.drivers), id };
        self.tracker.spawn(async move {
            let _place = place;
            match Driver::load(shared, id).await {
                Ok(driver) => driver.run(receiver).await,
                // It stays RUNNING in the list, with the reason in the log, and costs no other task.
                Err(error) => {
                    tracing::error!(task = %id, error = crate::telemetry::chain(&error), "the task needs an operator");
                }
            }
        });
        orders
    }
}

/// The entry of a driver that runs; given up however the driver ends.
struct Place {
    drivers: Arc<Mutex<HashMap<TaskId, mpsc::Sender<Order>>>>,
    id: TaskId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
