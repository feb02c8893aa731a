//! Group commit: whatever waits to be written goes into one transaction, so that one sync serves many.
//!
//!  1. What fails before the commit is undone as a whole and told to whoever asked; it costs nobody else.
//!  2. A commit that fails for another reason than a full disk ends the program: after a failed sync nobody knows what
//!     is on the disk, and only a restart that reads the journal does. Nothing is written again before that.

use super::{
    metrics::EngineMetrics,
    store::{LogText, RowChange, TaskStore, Unwritten, Write, Written},
};
use crate::coordinator::store::{
    StoreError,
    task::{AppendError, TaskId},
};
use futures_util::future::BoxFuture;
use sqlx::AnyConnection;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

const QUEUE: usize = 1024;
const GROUP: usize = 256;

enum Request {
    Write(Write, oneshot::Sender<Written>),
    /// Answered after everything that was asked before.
    Beat(oneshot::Sender<()>),
}

/// The journal's writer has ended, because the program does.
#[derive(Debug, thiserror::Error)]
#[error("the journal is closed")]
pub struct Closed;

/// A place in the line of what is to be written.
pub(super) struct Room(mpsc::OwnedPermit<Request>);

impl Room {
    /// What came of it is answered later, to whoever still waits.
    pub(super) fn log(self, text: LogText) -> oneshot::Receiver<Written> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Request::Write(Write::Log(text), reply));
        answer
    }
}

/// The only way to write what belongs to tasks under way.
#[derive(Clone)]
pub(in crate::coordinator) struct Journal {
    requests: mpsc::Sender<Request>,
    commits: watch::Receiver<u64>,
}

impl Journal {
    /// Starts the writer. It ends with `closing`, or after cancelling `fatal` when the store fails for good.
    pub(super) fn start(
        store: Arc<dyn TaskStore>,
        metrics: EngineMetrics,
        closing: CancellationToken,
        fatal: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (requests, receiver) = mpsc::channel(QUEUE);
        let (committed, commits) = watch::channel(0);
        let committed = Committed { commits: committed, metrics };
        let writer = async move {
            tokio::select! {
                biased;
                () = run(store.as_ref(), receiver, committed, fatal) => {}
                () = closing.cancelled() => {}
            }
        };
        (Self { requests, commits }, tokio::spawn(writer))
    }

    /// Changes with every commit.
    pub(super) fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }

    /// Returns once there is a place before whatever is asked later.
    pub(super) async fn room(&self) -> Result<Room, Closed> {
        Ok(Room(self.requests.clone().reserve_owned().await.map_err(|_| Closed)?))
    }

    /// Changes rows that are not a task's own on behalf of a task, in one transaction with whatever else waits to be
    /// written; answers what the change answers, once that is synced to disk. Nothing is changed for a task that a newer
    /// coordinator has claimed.
    pub(in crate::coordinator) async fn change<T: Send + 'static>(
        &self,
        (task, epoch): (TaskId, i64),
        change: impl for<'c> Fn(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, StoreError>> + Send + Sync + 'static,
    ) -> Result<Result<T, StoreError>, Closed> {
        let answer = Arc::new(Mutex::new(None));
        let (place, change) = (Arc::clone(&answer), Arc::new(change));
        let change = RowChange(Arc::new(move |connection| {
            let (place, change) = (Arc::clone(&place), Arc::clone(&change));
            Box::pin(async move {
                let answer = change(connection).await?;
                *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
                Ok(())
            })
        }));
        match self.write(Write::Rows { task, epoch, change }).await? {
            // A store without such rows has nothing to answer.
            Ok(()) => answer.lock().unwrap_or_else(PoisonError::into_inner).take().map(Ok).ok_or(Closed),
            Err(AppendError::Store(error)) => Ok(Err(error)),
            // Whoever drives the task here is to stop, as at the end of the program.
            Err(error @ (AppendError::Fenced(_) | AppendError::Reserved(_))) => {
                tracing::warn!(%task, error = crate::telemetry::chain(&error), "a step of the task changes nothing");
                Err(Closed)
            }
        }
    }

    /// Returns once it is synced to disk.
    pub(super) async fn write(&self, write: Write) -> Result<Written, Closed> {
        self.ask(write).await?.await.map_err(|_| Closed)
    }

    async fn ask(&self, write: Write) -> Result<oneshot::Receiver<Written>, Closed> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Write(write, reply)).await.map_err(|_| Closed)?;
        Ok(answer)
    }

    /// Comes back when the writer has done all that was asked before, without a commit of its own.
    pub(super) async fn beat(&self) -> Result<(), Closed> {
        let (beat, answer) = oneshot::channel();
        self.requests.send(Request::Beat(beat)).await.map_err(|_| Closed)?;
        answer.await.map_err(|_| Closed)
    }
}

async fn run(store: &dyn TaskStore, requests: mpsc::Receiver<Request>, committed: Committed, fatal: CancellationToken) {
    if let Err(error) = write_all(store, requests, &committed).await {
        tracing::error!(error = crate::telemetry::chain(&error), "the store failed; stopping to recover");
        fatal.cancel();
    }
}

/// Writes until nobody can ask any more, or until nobody knows what is on disk.
async fn write_all(
    store: &dyn TaskStore,
    mut requests: mpsc::Receiver<Request>,
    committed: &Committed,
) -> Result<(), StoreError> {
    let mut group = Vec::with_capacity(GROUP);
    while requests.recv_many(&mut group, GROUP).await > 0 {
        let (mut writes, mut replies, mut beats) = (Vec::new(), Vec::new(), Vec::new());
        for request in group.drain(..) {
            match request {
                Request::Write(write, reply) => {
                    writes.push(write);
                    replies.push(reply);
                }
                Request::Beat(beat) => beats.push(beat),
            }
        }
        commit(store, writes, replies, committed).await?;
        for beat in beats {
            // Who asked may have lost patience.
            let _ = beat.send(());
        }
    }
    Ok(())
}

async fn commit(
    store: &dyn TaskStore,
    writes: Vec<Write>,
    replies: Vec<oneshot::Sender<Written>>,
    committed: &Committed,
) -> Result<(), StoreError> {
    if writes.is_empty() {
        return Ok(());
    }
    match store.commit(&writes).await {
        Ok(results) => {
            committed.count(&writes);
            replies.into_iter().zip(results).for_each(|(reply, result)| tell(reply, result));
        }
        Err(Unwritten::InDoubt(error)) => return Err(error),
        // One bad request must not take its neighbours with it, so each is written by itself.
        Err(Unwritten::Undone(_)) => {
            for (write, reply) in writes.into_iter().zip(replies) {
                match store.commit(std::slice::from_ref(&write)).await {
                    Ok(results) => {
                        committed.count(std::slice::from_ref(&write));
                        if let Some(result) = results.into_iter().next() {
                            tell(reply, result);
                        }
                    }
                    Err(Unwritten::Undone(error)) => {
                        if let Write::Log(LogText { task, node, .. }) = &write {
                            let error = crate::telemetry::chain(&error);
                            tracing::warn!(%task, %node, error, "a part of a log is not kept");
                        }
                        tell(reply, Err(error.into()));
                    }
                    Err(Unwritten::InDoubt(error)) => return Err(error),
                }
            }
        }
    }
    Ok(())
}

/// Who is told of a commit.
struct Committed {
    commits: watch::Sender<u64>,
    metrics: EngineMetrics,
}

impl Committed {
    fn count(&self, group: &[Write]) {
        let events = |write: &Write| if let Write::Append(append) = write { append.events.len() as u64 } else { 0 };
        self.metrics.commits.inc();
        self.metrics.events.inc_by(group.iter().map(events).sum());
        self.commits.send_modify(|count| *count += 1);
    }
}

/// Whoever asked may have been shut down meanwhile; what is written stays written.
fn tell(reply: oneshot::Sender<Written>, result: Written) {
    let _ = reply.send(result);
}
