//! What the engine asks of its store. [`SqlTaskStore`](super::SqlTaskStore) is the real one; the simulation brings one
//! that lives in memory, loses answers and fails when it is told to.
//!
//! An implementation promises:
//!  1. A group is written as a whole or not at all, and what `commit` answered is on disk.
//!  2. Nothing is written for a task whose epoch is another than the one that asks; that one is told `Fenced`.
//!  3. Appends of one task are taken in their order, each exactly once: the sequence number decides.

use crate::{
    coordinator::{
        agents::AgentAddress,
        secrets::SecretError,
        store::{
            StoreError,
            task::{Append, AppendError, LoadError, LoadedTask, LogPosition, TaskId},
        },
    },
    graph::{NodeIndex, TaskStatus},
    operations::TaskPlan,
    steps::values::PackageRef,
};
use futures_util::future::BoxFuture;
use sqlx::AnyConnection;
use std::{fmt, path::PathBuf, sync::Arc};
use zeroize::Zeroizing;

/// Text for the log of an attempt.
#[derive(Debug, Clone)]
pub struct LogText {
    pub task: TaskId,
    /// Under which the task was claimed.
    pub epoch: i64,
    pub node: NodeIndex,
    pub attempt: u32,
    pub position: LogPosition,
    pub text: String,
}

/// One thing to be written.
#[derive(Debug, Clone)]
pub enum Write {
    /// From here on only `epoch` writes to the task.
    Claim {
        task: TaskId,
        epoch: i64,
    },
    Append(Box<Append>),
    Log(LogText),
    /// Why the task cannot be taken up, with the status FAILED; or None, with the status that its events give.
    Problem {
        task: TaskId,
        epoch: i64,
        problem: Option<String>,
        status: TaskStatus,
    },
    /// Of hosts and proxies, by steps that need no agent, on behalf of a task that `epoch` has claimed.
    Rows {
        task: TaskId,
        epoch: i64,
        change: RowChange,
    },
    /// The agents know that the outcomes of a task at rest are safe, as far as its events went then.
    Acknowledged {
        task: TaskId,
        next_sequence: i64,
    },
}

impl Write {
    pub fn task(&self) -> TaskId {
        match self {
            Self::Append(append) => append.task,
            Self::Log(LogText { task, .. })
            | Self::Claim { task, .. }
            | Self::Problem { task, .. }
            | Self::Rows { task, .. }
            | Self::Acknowledged { task, .. } => *task,
        }
    }
}

type ChangeRows = dyn for<'c> Fn(&'c mut AnyConnection) -> BoxFuture<'c, Result<(), StoreError>> + Send + Sync;

/// A change of rows that are not a task's own. It reads what it decides by itself, in the transaction in which it writes,
/// and is carried out anew if that is taken back because of another write.
#[derive(Clone)]
pub struct RowChange(pub(super) Arc<ChangeRows>);

impl RowChange {
    /// For whoever wants to know only whether a change would be made.
    #[cfg(test)]
    pub(crate) fn nothing() -> Self {
        Self(Arc::new(|_connection| Box::pin(async { Ok(()) })))
    }

    pub(super) async fn carry_out(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        (self.0)(connection).await
    }
}

impl fmt::Debug for RowChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowChange")
    }
}

/// What came of one write. Only a disk that was full, or a row that refuses it, is told as a store error.
pub type Written = Result<(), AppendError>;

/// Why a group was not written.
#[derive(Debug)]
pub enum Unwritten {
    Undone(StoreError),
    /// It may be on disk all the same.
    InDoubt(StoreError),
}

/// A password by its name.
pub type NamedSecret = (&'static str, Zeroizing<String>);

/// Why a step could not even be handed out.
#[derive(Debug, thiserror::Error)]
pub enum PreparationError {
    #[error("the coordinator's store cannot be read")]
    Store(#[from] StoreError),
    #[error("host {0} does not exist")]
    NoHost(i64),
    #[error("proxy cluster {0} does not exist")]
    NoCluster(i64),
    #[error("the passwords of the proxy cluster cannot be opened")]
    Secret(#[from] SecretError),
}

pub trait TaskStore: Send + Sync {
    /// Takes a number above all earlier ones.
    fn next_epoch(&self) -> BoxFuture<'_, Result<i64, StoreError>>;

    /// Tasks that are under way, and those that could not be taken up the last time.
    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<TaskId>, StoreError>>;

    /// Tasks that are under way and that no newer coordinator has claimed.
    fn running(&self, epoch: i64) -> BoxFuture<'_, Result<Vec<TaskId>, StoreError>>;

    /// Tasks at rest whose agents may not know that the outcomes are safe.
    fn unacknowledged(&self) -> BoxFuture<'_, Result<Vec<TaskId>, StoreError>>;

    /// Replays the journal of a task.
    fn load(&self, id: TaskId) -> BoxFuture<'_, Result<LoadedTask, LoadError>>;

    /// Writes a group in one transaction; answers what came of each.
    fn commit<'a>(&'a self, group: &'a [Write]) -> BoxFuture<'a, Result<Vec<Written>, Unwritten>>;

    fn log_position(
        &self,
        task: TaskId,
        node: NodeIndex,
        attempt: u32,
    ) -> BoxFuture<'_, Result<LogPosition, StoreError>>;

    fn agent_address(&self, host_id: i64) -> BoxFuture<'_, Result<Option<AgentAddress>, StoreError>>;

    /// Opens the passwords that a step of this task needs.
    fn secrets<'a>(
        &'a self,
        plan: &'a TaskPlan,
        names: &'static [&'static str],
    ) -> BoxFuture<'a, Result<Vec<NamedSecret>, PreparationError>>;

    /// Where the coordinator keeps a package.
    fn package_path<'a>(&'a self, package: &'a PackageRef) -> BoxFuture<'a, Result<Option<PathBuf>, StoreError>>;

    /// Removes what is kept for a time only.
    fn expire(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}
