//! The durable memory of the agent: one SQLite file, written by one task.
//!
//! Guarantees:
//!  1. A method that changes something returns after the change is synced to disk, and changes become visible in the
//!     order in which they were committed.
//!  2. Changes that wait while a sync runs are committed together, so that many operations share one sync.
//!  3. A full disk undoes the change and is told as [`JournalError::DiskFull`]; the journal goes on.
//!  4. After any other failure of a commit nobody knows what is on disk. The writer stops, every later call answers
//!     [`JournalError::Stopped`], and the program has to end and recover. The sync is never tried again.
//!  5. One unreadable record costs who asks for it, not the journal.
//!  6. Locks are rows: a lock is held by the unfinished operation that names it, and by nothing else.

mod collection;
mod commits;
#[cfg(test)]
mod query_plans;
mod records;
mod recovery;
mod rows;
mod schema;
mod seal;
#[cfg(test)]
mod tests;
mod writer;

pub use collection::{Expired, Need};
pub use commits::Commits;
pub use records::{Accepted, Acknowledged, Canceled, Page};
pub use recovery::{GivenUp, Unfinished};
pub use rows::{Attempt, Resume};
pub use writer::JournalFailure;

#[cfg(test)]
use crate::simulation;
use crate::{agent::host::durable::make_directory, blocking};
use commits::Announcer;
use futures_util::future::BoxFuture;
use seal::Sealer;
use sqlx::{
    ConnectOptions as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use writer::Job;

/// Why the journal could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("there is no room left on the disk for the journal")]
    DiskFull,
    #[error("the journal has stopped after a failed write")]
    Stopped,
    #[error("the operation cannot be encoded for the journal")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the journal cannot be read")]
    Read(#[source] sqlx::Error),
}

impl From<JournalError> for io::Error {
    fn from(error: JournalError) -> Self {
        match &error {
            JournalError::DiskFull => Self::new(io::ErrorKind::StorageFull, error),
            JournalError::Stopped | JournalError::Encode(_) | JournalError::Read(_) => Self::other(error),
        }
    }
}

/// Why the journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path} cannot be prepared")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} cannot be opened as a journal")]
    Database {
        path: PathBuf,
        #[source]
        source: sqlx::Error,
    },
    #[error("{path} has schema version {found}; this agent knows versions up to {known}")]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("{0} is not a key of 32 bytes")]
    Key(PathBuf),
}

/// A handle to the journal; clones share one writer.
#[derive(Clone)]
pub struct Journal {
    jobs: mpsc::Sender<Job>,
    commits: Commits,
    sealer: Arc<Sealer>,
    /// Highest epoch heard of, also from checks: to ask the database would cost them more than their own work.
    epoch: Arc<AtomicU64>,
}

/// Callers wait when this many requests are waiting already.
const QUEUE: usize = 256;

impl Journal {
    /// Opens or makes the journal of `directory`. The task ends when the last handle is gone, or with a failure.
    pub async fn open(directory: &Path) -> Result<(Self, JoinHandle<Result<(), JournalFailure>>), OpenError> {
        private_directory(directory)?;
        let path = directory.join("journal.db");
        // SQLite gives its WAL the mode of the database.
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| OpenError::File { path: path.clone(), source })?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .pragma("secure_delete", "ON");
        let database = |source| OpenError::Database { path: path.clone(), source };
        let mut connection = blocking::database(options.connect()).await.map_err(database)?;
        blocking::database(schema::migrate(&mut connection, &path)).await?;
        let sealer = Arc::new(Sealer::load_or_create(&directory.join("journal.key"))?);
        let highest = blocking::database(records::highest(&mut connection)).await.map_err(database)?;
        let epoch = Arc::new(AtomicU64::new(highest));
        let (jobs, queue) = mpsc::channel(QUEUE);
        let committed = Announcer::default();
        let commits = committed.listener();
        let writer = tokio::spawn(writer::run(connection, queue, committed));
        Ok((Self { jobs, commits, sealer, epoch }, writer))
    }

    pub fn highest_epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Takes note of a caller's epoch; answers the highest if that is above it. Checks are fenced by this alone: what
    /// they have heard is not on disk, and is heard again after a restart.
    pub fn hear(&self, epoch: u64) -> Option<u64> {
        let highest = self.epoch.fetch_max(epoch, Ordering::AcqRel);
        (epoch < highest).then_some(highest)
    }

    /// Changes whenever something was committed.
    pub fn commits(&self) -> Commits {
        let mut commits = self.commits.clone();
        commits.update();
        commits
    }

    /// Comes back when the writer has done all that was asked before, without a commit of its own.
    pub async fn beat(&self) -> Result<(), JournalError> {
        self.read(|_connection| Box::pin(async { Ok(()) })).await
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    ) -> Result<T, JournalError> {
        #[cfg(test)]
        let which = std::any::type_name_of_val(&work);
        #[cfg(test)]
        simulation::journal(which, simulation::Side::Before).await?;
        let (reply, answer) = oneshot::channel();
        let job = Job::Write(Box::new(move |connection| {
            Box::pin(async move {
                let value = match work(connection).await {
                    Ok(value) => Ok(value),
                    // A row that makes no sense, met before anything was changed: it costs who asked for it.
                    Err(error @ (sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. })) => {
                        Err(JournalError::Read(error))
                    }
                    Err(error) => return Err(error),
                };
                // Who asked may have gone; the change counts all the same.
                Ok(Box::new(move || drop(reply.send(value))) as writer::Reply)
            })
        }));
        self.jobs.send(job).await.map_err(|_closed| JournalError::Stopped)?;
        // The writer drops a reply unsent only when it rolled back; it closes its queue first when it stops for good.
        let rolled_back = |_| if self.jobs.is_closed() { JournalError::Stopped } else { JournalError::DiskFull };
        let answer = answer.await.map_err(rolled_back)?;
        #[cfg(test)]
        simulation::journal(which, simulation::Side::After).await?;
        answer
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (reply, answer) = oneshot::channel();
        let job =
            Job::Read(Box::new(move |connection| Box::pin(async move { drop(reply.send(work(connection).await)) })));
        self.jobs.send(job).await.map_err(|_closed| JournalError::Stopped)?;
        answer.await.map_err(|_| JournalError::Stopped)?.map_err(JournalError::Read)
    }
}

/// Makes a directory that only the owner may enter.
pub(crate) fn private_directory(path: &Path) -> Result<(), OpenError> {
    let make = || -> io::Result<()> {
        make_directory(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
    };
    make().map_err(|source| OpenError::File { path: path.into(), source })
}
