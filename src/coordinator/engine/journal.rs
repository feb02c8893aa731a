//! Group commit: whatever waits to be written goes into one transaction, so that one sync serves many.
//!
//!  1. What fails before the commit is undone as a whole and told to whoever asked; it costs nobody else.
//!  2. A commit that fails for another reason than a full disk ends the program: after a failed sync nobody knows what
//!     is on the disk, and only a restart that reads the journal does. Nothing is written again before that.

use crate::coordinator::store::{
    Store, StoreError,
    tasks::{Append, AppendError, LogPosition, TaskId, append, append_log},
};
use crate::graph::NodeIndex;
use sqlx::AnyConnection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

const QUEUE: usize = 1024;
const GROUP: usize = 64;

/// Text for the log of an attempt.
#[derive(Debug, Clone)]
pub(super) struct LogText {
    pub(super) task: TaskId,
    pub(super) node: NodeIndex,
    pub(super) attempt: u32,
    pub(super) position: LogPosition,
    pub(super) text: String,
}

enum Write {
    Append(Box<Append>),
    Log(LogText),
}

struct Request {
    write: Write,
    reply: oneshot::Sender<Result<(), AppendError>>,
}

/// The journal's writer has ended, because the program does.
#[derive(Debug, thiserror::Error)]
#[error("the journal is closed")]
pub(super) struct Closed;

/// The only way to write events and logs.
#[derive(Clone)]
pub(super) struct Journal {
    requests: mpsc::Sender<Request>,
    commits: watch::Receiver<u64>,
}

impl Journal {
    /// Starts the writer. It ends with `closing`, or after cancelling `fatal` when the store fails for good.
    pub(super) fn start(
        store: Store,
        closing: CancellationToken,
        fatal: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (requests, receiver) = mpsc::channel(QUEUE);
        let (committed, commits) = watch::channel(0);
        let writer = async move {
            tokio::select! {
                biased;
                () = run(store, receiver, committed, fatal) => {}
                () = closing.cancelled() => {}
            }
        };
        (Self { requests, commits }, tokio::spawn(writer))
    }

    /// Changes with every commit.
    pub(super) fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }

    /// Returns once the events are synced to disk.
    pub(super) async fn append(&self, append: Append) -> Result<Result<(), AppendError>, Closed> {
        self.write(Write::Append(Box::new(append))).await
    }

    pub(super) async fn log(&self, text: LogText) -> Result<Result<(), AppendError>, Closed> {
        self.write(Write::Log(text)).await
    }

    async fn write(&self, write: Write) -> Result<Result<(), AppendError>, Closed> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request { write, reply }).await.map_err(|_| Closed)?;
        answer.await.map_err(|_| Closed)
    }
}

async fn run(store: Store, requests: mpsc::Receiver<Request>, committed: watch::Sender<u64>, fatal: CancellationToken) {
    if let Err(error) = write_all(&store, requests, &committed).await {
        tracing::error!(error = crate::telemetry::chain(&error), "the store failed; stopping to recover");
        fatal.cancel();
    }
}

/// Writes until nobody can ask any more, or until nobody knows what is on disk.
async fn write_all(
    store: &Store,
    mut requests: mpsc::Receiver<Request>,
    committed: &watch::Sender<u64>,
) -> Result<(), StoreError> {
    let mut group = Vec::with_capacity(GROUP);
    while requests.recv_many(&mut group, GROUP).await > 0 {
        if group.len() > 1 {
            match write_group(store, &group).await {
                Ok(results) => {
                    group.drain(..).zip(results).for_each(|(request, result)| request.tell(result));
                    committed.send_modify(|count| *count += 1);
                    continue;
                }
                // One bad request must not take its neighbours with it, so each is written by itself.
                Err(Unwritten::Undone(_)) => {}
                Err(Unwritten::InDoubt(error)) => return Err(error),
            }
        }
        for request in group.drain(..) {
            match write_group(store, std::slice::from_ref(&request)).await {
                Ok(results) => {
                    if let Some(result) = results.into_iter().next() {
                        request.tell(result);
                    }
                    committed.send_modify(|count| *count += 1);
                }
                Err(Unwritten::Undone(error)) => request.tell(Err(error.into())),
                Err(Unwritten::InDoubt(error)) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Why a group was not written.
enum Unwritten {
    Undone(StoreError),
    /// It may be on disk all the same.
    InDoubt(StoreError),
}

impl Request {
    fn tell(self, result: Result<(), AppendError>) {
        // Whoever asked may have been shut down meanwhile; what is written stays written.
        let _ = self.reply.send(result);
    }
}

/// Writes all requests in one transaction; answers what came of each.
async fn write_group(store: &Store, group: &[Request]) -> Result<Vec<Result<(), AppendError>>, Unwritten> {
    let mut transaction = store.begin().await.map_err(Unwritten::Undone)?;
    let mut results = Vec::with_capacity(group.len());
    for request in group {
        results.push(write(&mut transaction, &request.write).await.map_err(Unwritten::Undone)?);
    }
    match transaction.commit().await.map_err(StoreError::from) {
        Ok(()) => Ok(results),
        Err(full @ StoreError::DiskFull(_)) => Err(Unwritten::Undone(full)),
        Err(error) => Err(Unwritten::InDoubt(error)),
    }
}

async fn write(connection: &mut AnyConnection, write: &Write) -> Result<Result<(), AppendError>, StoreError> {
    match write {
        Write::Append(events) => match append(connection, events).await {
            Err(AppendError::Store(error)) => Err(error),
            // A fenced append has changed nothing, so its neighbours can be committed.
            result => Ok(result),
        },
        Write::Log(log) => {
            append_log(connection, (log.task, log.node, log.attempt), log.position, &log.text).await?;
            Ok(Ok(()))
        }
    }
}
