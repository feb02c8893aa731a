//! The task that owns the connection.

use super::commits::Announcer;
use crate::blocking;
use futures_util::future::BoxFuture;
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::mpsc;

pub(super) type Reply = Box<dyn FnOnce() + Send>;
type Write = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, sqlx::Result<Reply>> + Send>;
type Read = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, ()> + Send>;

pub(super) enum Job {
    /// Runs inside the group's transaction; its reply is sent after the commit.
    Write(Write),
    /// Runs between transactions, so it sees nothing that may be rolled back.
    Read(Read),
}

/// The journal could not be written and nobody knows what is on disk.
#[derive(Debug, thiserror::Error)]
#[error("the journal cannot be written")]
pub struct JournalFailure(#[from] sqlx::Error);

const GROUP: usize = 64;
/// Primary result code: <https://www.sqlite.org/rescode.html#full>.
const SQLITE_FULL: &str = "13";

pub(super) async fn run(
    mut connection: SqliteConnection,
    mut queue: mpsc::Receiver<Job>,
    committed: Announcer,
) -> Result<(), JournalFailure> {
    let mut group = Vec::with_capacity(GROUP);
    while queue.recv_many(&mut group, GROUP).await > 0 {
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for job in group.drain(..) {
            match job {
                Job::Write(write) => writes.push(write),
                Job::Read(read) => reads.push(read),
            }
        }
        if !writes.is_empty() {
            match blocking::database(commit(&mut connection, writes)).await {
                Ok(replies) => {
                    for reply in replies {
                        reply();
                    }
                    committed.committed();
                }
                Err(rolled_back) if is_full(&rolled_back.error) => {
                    tracing::warn!("the disk is full: the journal cannot take changes");
                    // SQLite may have rolled back by itself, and then there is no transaction to end.
                    let _ = blocking::database(sqlx::query("ROLLBACK").execute(&mut connection)).await;
                    drop(rolled_back.replies);
                }
                Err(failed) => {
                    queue.close();
                    return Err(failed.error.into());
                }
            }
        }
        for read in reads {
            blocking::database(read(&mut connection)).await;
        }
    }
    blocking::database(connection.close()).await.map_err(JournalFailure)
}

struct RolledBack {
    error: sqlx::Error,
    /// Kept until it is clear whether the journal goes on: dropping them is the answer.
    replies: Vec<Reply>,
}

async fn commit(connection: &mut SqliteConnection, writes: Vec<Write>) -> Result<Vec<Reply>, RolledBack> {
    let mut replies = Vec::with_capacity(writes.len());
    match apply(connection, writes, &mut replies).await {
        Ok(()) => Ok(replies),
        Err(error) => Err(RolledBack { error, replies }),
    }
}

async fn apply(connection: &mut SqliteConnection, writes: Vec<Write>, replies: &mut Vec<Reply>) -> sqlx::Result<()> {
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    for write in writes {
        replies.push(write(connection).await?);
    }
    sqlx::query("COMMIT").execute(connection).await?;
    Ok(())
}

fn is_full(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == SQLITE_FULL)
}
