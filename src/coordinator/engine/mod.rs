//! The engine: drives every task to its end, whatever crashes on the way.
//!
//!  1. What is to be done is decided by the pure planner; what happened is appended to the journal before anything
//!     follows from it.
//!  2. A dispatch is committed before the work is handed out. At start, whatever was handed out and not answered is
//!     asked for again under the same key (window W1), and an outcome is acknowledged only after it is committed (W5).
//!  3. Each task has its own driver, so that one bad task, or one unreachable host, stalls no other. A task that cannot
//!     be taken up (a damaged record, a step of a newer program) is shown as FAILED with its problem.
//!  4. Work per task and per host is bounded, and so is the number of tasks under way ([`turns`]).
//!  5. Whoever makes a task wakes its driver, and a sweep finds those that were never woken or whose driver broke off.

mod acknowledge;
pub(in crate::coordinator) mod attempt;
mod driver;
mod flight;
mod hosts;
mod housekeeping;
pub(in crate::coordinator) mod journal;
pub(in crate::coordinator) mod local_steps;
mod log;
mod metrics;
mod sql;
mod store;
#[cfg(test)]
mod tests;
mod turns;
pub(in crate::coordinator) mod waits;

pub use attempt::Outcome;
pub use local_steps::{LocalRun, LocalSteps};
pub use log::AttemptLog;
pub use metrics::EngineMetrics;
pub use sql::SqlTaskStore;
#[cfg(test)]
pub(crate) use sql::claims_decide;
pub use store::{LogText, NamedSecret, PreparationError, RowChange, TaskStore, Unwritten, Write, Written};
pub use waits::{Wait, WaitPlace};

use super::{
    agents::AgentPool,
    store::{
        StoreError,
        locks::Holder,
        task::{LoadError, TaskId},
    },
};
use crate::{
    coordinator::quiet::QuietHosts,
    graph::{Command, NodeIndex, Refusal},
};
use acknowledge::Unfinished;
use driver::Driver;
use futures_util::FutureExt as _;
use journal::Journal;
use std::{
    collections::{HashMap, HashSet},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use turns::Turns;
use waits::Waits;

/// Subtasks of one task that run at a time unless it says otherwise; OCP's engine has the same number.
const MAX_RUNNING_PER_TASK: usize = 10;
/// Agent steps that run at a time on one host, over all tasks.
const MAX_RUNNING_PER_HOST: usize = 4;
/// Not worth a look for those at rest.
const FEW_HOSTS: usize = 64;
const COMMAND_QUEUE: usize = 16;
/// How long a host whose agent did not answer is not asked again about outcomes.
const FIRST_REST: Duration = Duration::from_secs(60);
const LONGEST_REST: Duration = Duration::from_secs(3600);
/// A driver that panicked so often is not tried again before the next start or an operator's decision.
const MAX_DRIVER_PANICS: u32 = 3;
/// A driver that ends with an order in its queue came to rest in that moment, so the next one answers.
const DRIVERS_PER_COMMAND: usize = 3;

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The task had released what it needs to run again.
    #[error("{0}")]
    Reserved(Holder),
    #[error("the task cannot be resumed")]
    Load(#[from] LoadError),
    #[error("the task has no driver at the moment")]
    Undriven,
    #[error("the coordinator is shutting down")]
    ShuttingDown,
}

/// A decision of an operator on its way to the driver.
struct Order {
    command: Command,
    by: String,
    reply: oneshot::Sender<Result<(), CommandError>>,
}

/// What all drivers share.
struct Shared {
    tasks: Arc<dyn TaskStore>,
    local: Arc<dyn LocalSteps>,
    agents: Arc<AgentPool>,
    journal: Journal,
    metrics: EngineMetrics,
    epoch: i64,
    hosts: HostPermits,
    turns: Turns,
    waits: Arc<Waits>,
    /// By id.
    quiet: QuietHosts<i64>,
    shutdown: CancellationToken,
}

impl Shared {
    fn agent_epoch(&self) -> u64 {
        u64::try_from(self.epoch).unwrap_or(0)
    }
}

/// What the engine is made of.
pub struct EngineParts {
    /// Tasks that are under way at a time, at most.
    pub running_tasks: usize,
    pub tasks: Arc<dyn TaskStore>,
    pub local: Arc<dyn LocalSteps>,
    pub agents: Arc<AgentPool>,
    pub metrics: EngineMetrics,
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
    /// How often drivers have panicked since the task last came to rest.
    panics: Arc<Mutex<HashMap<TaskId, u32>>>,
    tracker: TaskTracker,
    closing: CancellationToken,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Engine {
    /// Takes a new epoch and takes up every unfinished task; returns once all of them are.
    pub async fn start(parts: EngineParts) -> Result<Self, StoreError> {
        let epoch = parts.tasks.next_epoch().await?;
        let unfinished = parts.tasks.unfinished().await?;
        let tracker = TaskTracker::new();
        let closing = CancellationToken::new();
        let (journal, writer) =
            Journal::start(Arc::clone(&parts.tasks), parts.metrics.clone(), closing.clone(), parts.fatal);
        let shared = Arc::new(Shared {
            tasks: parts.tasks,
            local: parts.local,
            agents: parts.agents,
            journal,
            turns: Turns::new(parts.running_tasks, parts.metrics.waiting.clone()),
            metrics: parts.metrics,
            epoch,
            hosts: HostPermits::default(),
            waits: Arc::default(),
            quiet: QuietHosts::new(FIRST_REST, LONGEST_REST),
            shutdown: parts.shutdown,
        });
        let writer = Arc::new(Mutex::new(Some(writer)));
        let engine = Self { shared, drivers: Arc::default(), panics: Arc::default(), tracker, closing, writer };
        tracing::info!(epoch, tasks = unfinished.len(), "taking up unfinished tasks");
        let taken_up: Vec<_> = unfinished.into_iter().map(|id| engine.begin(id, Entry::Recovered)).collect();
        for task in taken_up.into_iter().flatten() {
            // An error only says that the driver has let go of its end, which is the news that counts.
            let _ = task.await;
        }
        engine.tracker.spawn(housekeeping::keep(engine.clone()));
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

    /// Tasks that are driven at the moment.
    pub fn driven(&self) -> usize {
        self.drivers().len()
    }

    /// Comes back when tasks can be woken and the journal's writer has caught up. A store that failed ends the program
    /// by itself.
    pub async fn beat(&self) {
        drop(self.drivers());
        let _ = self.shared.journal.beat().await;
    }

    pub fn agents(&self) -> &Arc<AgentPool> {
        &self.shared.agents
    }

    /// Starts to drive a task that was committed to the store; harmless if it is driven already. The receiver ends
    /// when the task was taken up or waits for its turn, or turned out to be one that cannot be.
    pub fn wake(&self, id: TaskId) -> Option<oneshot::Receiver<()>> {
        self.begin(id, Entry::Line)
    }

    fn begin(&self, id: TaskId, entry: Entry) -> Option<oneshot::Receiver<()>> {
        let mut drivers = self.drivers();
        if drivers.contains_key(&id) {
            return None;
        }
        let (taken_up, receiver) = oneshot::channel();
        drivers.insert(id, self.spawn_driver(id, entry, taken_up));
        Some(receiver)
    }

    /// Carries out an operator's decision; returns once it is in the journal.
    pub async fn command(&self, id: TaskId, command: Command, by: &str) -> Result<(), CommandError> {
        for _ in 0..DRIVERS_PER_COMMAND {
            let (reply, answer) = oneshot::channel();
            let order = Order { command, by: by.to_owned(), reply };
            let driver = self.driver(id);
            if driver.send(order).await.is_ok()
                && let Ok(result) = answer.await
            {
                return result;
            }
            if self.shared.shutdown.is_cancelled() {
                return Err(CommandError::ShuttingDown);
            }
            // The driver ended with the order in its queue: the task came to rest, or cannot be taken up.
            self.shared.tasks.load(id).await?;
        }
        Err(CommandError::Undriven)
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
            tracing::error!(%error, "the journal's writer was aborted");
        }
    }

    fn drivers(&self) -> std::sync::MutexGuard<'_, HashMap<TaskId, mpsc::Sender<Order>>> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn driver(&self, id: TaskId) -> mpsc::Sender<Order> {
        self.drivers().entry(id).or_insert_with(|| self.spawn_driver(id, Entry::Line, oneshot::channel().0)).clone()
    }

    fn driven_tasks(&self) -> HashSet<TaskId> {
        self.drivers().keys().copied().collect()
    }

    fn is_driven(&self, id: TaskId) -> bool {
        self.drivers().contains_key(&id)
    }

    fn spawn_driver(&self, id: TaskId, entry: Entry, taken_up: oneshot::Sender<()>) -> mpsc::Sender<Order> {
        let (orders, receiver) = mpsc::channel(COMMAND_QUEUE);
        let shared = Arc::clone(&self.shared);
        let driven = self.shared.metrics.driven.clone();
        driven.inc();
        let place = Place { drivers: Arc::clone(&self.drivers), id, driven };
        let panics = Arc::clone(&self.panics);
        self.tracker.spawn(async move {
            let drive = drive(Arc::clone(&shared), id, entry, taken_up, receiver);
            let lock = || panics.lock().unwrap_or_else(PoisonError::into_inner);
            let left = match AssertUnwindSafe(drive).catch_unwind().await {
                Ok(left) => {
                    if left.is_some() {
                        lock().remove(&id);
                    }
                    left
                }
                Err(_panic) => {
                    let count = {
                        let mut panics = lock();
                        let count = panics.entry(id).or_default();
                        *count += 1;
                        *count
                    };
                    tracing::error!(task = %id, count, "the driver of a task panicked");
                    if count >= MAX_DRIVER_PANICS {
                        lock().remove(&id);
                        let problem =
                            format!("the coordinator failed {count} times while it drove the task; its log says where");
                        driver::give_up(&shared, id, problem).await;
                    }
                    None
                }
            };
            // The next decision about the task does not wait for what agents have to be told of this one.
            drop(place);
            if let Some(left) = left {
                left.finish().await;
            }
        });
        orders
    }
}

/// How a driver comes to its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// It waits for its turn.
    Line,
    /// At the start of the program: what was handed out before is asked for at once.
    Recovered,
}

/// From the line to the end of the task.
async fn drive(
    shared: Arc<Shared>,
    id: TaskId,
    entry: Entry,
    taken_up: oneshot::Sender<()>,
    mut orders: mpsc::Receiver<Order>,
) -> Option<Unfinished> {
    if entry == Entry::Recovered {
        let driver = Driver::load(Arc::clone(&shared), id, shared.turns.at_once()).await?;
        if !driver.can_wait() {
            drop(taken_up);
            return driver.run(None, orders).await;
        }
    }
    drop(taken_up);
    let (turn, first) = tokio::select! {
        biased;
        () = shared.shutdown.cancelled() => return None,
        // The sender is kept for as long as the driver runs.
        order = orders.recv() => (shared.turns.at_once(), order),
        turn = shared.turns.next() => (turn, None),
    };
    Driver::load(shared, id, turn).await?.run(first, orders).await
}

/// Turns on the hosts that have something to do.
#[derive(Default)]
struct HostPermits(Mutex<Permits>);

#[derive(Default)]
struct Permits {
    by_host: HashMap<i64, Arc<Semaphore>>,
    /// When there are so many, those of hosts at rest are dropped.
    swept_at: usize,
}

impl HostPermits {
    fn of(&self, host_id: i64) -> Arc<Semaphore> {
        let mut permits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if permits.by_host.len() >= permits.swept_at {
            // Permits that nobody holds are those of a host at rest.
            permits.by_host.retain(|_, permits| Arc::strong_count(permits) > 1);
            permits.swept_at = 2 * permits.by_host.len() + FEW_HOSTS;
        }
        Arc::clone(permits.by_host.entry(host_id).or_insert_with(|| Arc::new(Semaphore::new(MAX_RUNNING_PER_HOST))))
    }
}

/// The entry of a driver that runs; given up however the driver ends.
struct Place {
    drivers: Arc<Mutex<HashMap<TaskId, mpsc::Sender<Order>>>>,
    id: TaskId,
    driven: prometheus::IntGauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.driven.dec();
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
