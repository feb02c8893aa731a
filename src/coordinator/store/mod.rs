//! The coordinator's state in a relational store: SQLite by default, in a dialect that MySQL mode understands too.
//!
//! Rules that keep one code path for both: `?` placeholders, 64-bit integers for ids and for times in microseconds
//! since 1970, text for JSON, ids from the table `sequences`, no upsert outside this file.
//! SQLite has one writer, so all writing goes through one connection; readers have their own and never wait for it.
//! Where a store has several writers, a transaction that looks before it writes needs a turn: a row of `sequences`
//! that it updates first is locked until its end, and at READ COMMITTED it sees what the one before it wrote.
//! [`locks::take`] does so.
//!
//! Who has to wait for a connection, and for how long:
//!  1. Requests of the API write one after the other, and are told after ten seconds that the store is busy. However many
//!     they are, only one stands before the engine.
//!  2. The engine waits as long as it takes: a subtask does not fail because others write too.
//!  3. Logins and the decision whether an agent is spoken to read through connections that nobody else uses.

pub mod agent;
pub mod audit;
mod columns;
pub mod host;
pub mod locks;
pub mod obproxy;
pub mod package;
#[cfg(test)]
mod query_plans;
pub mod requests;
pub mod root_servers;
mod schema;
pub mod task;
mod together;
pub mod user;

use sqlx::{
    Any, AnyConnection, AnyPool, Connection as _, Encode, QueryBuilder, Row as _, Transaction, Type,
    any::{AnyConnectOptions, AnyPoolOptions, AnyRow},
    migrate::MigrateError,
};
use std::{
    collections::HashMap, net::IpAddr, os::unix::fs::OpenOptionsExt as _, path::Path, str::FromStr as _, sync::Arc,
    time::Duration,
};
use tokio::sync::Semaphore;

use agent::certificates::{self, Trust};
use together::Gather;
pub use together::Together;

/// What the store can answer instead of a result.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store's disk is full")]
    DiskFull(#[source] sqlx::Error),
    #[error("the store is busy")]
    Busy,
    #[error("the store answered an error")]
    Sql(#[source] sqlx::Error),
    #[error("the store cannot be migrated to the schema of this version")]
    Migrate(#[from] MigrateError),
    #[error("the store's file {path} cannot be made")]
    File { path: String, source: std::io::Error },
    #[error("{table} row {id} cannot be read")]
    Damaged { table: &'static str, id: i64, source: Box<dyn std::error::Error + Send + Sync> },
}

/// SQLITE_FULL; the extended codes share the low byte.
const SQLITE_FULL: &str = "13";

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if matches!(error, sqlx::Error::PoolTimedOut) {
            return Self::Busy;
        }
        let full = error.as_database_error().and_then(|e| e.code()).is_some_and(|code| code == SQLITE_FULL);
        if full { Self::DiskFull(error) } else { Self::Sql(error) }
    }
}

impl StoreError {
    /// A row with the same unique key exists.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(error)) if error.is_unique_violation())
    }
}

/// Name of the store's file in the coordinator's state directory.
pub const FILE_NAME: &str = "coordinator.db";

/// A handle to the store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    writer: AnyPool,
    /// For how long requests of the API wait for a connection.
    patience: Duration,
    /// Whoever of the API is next to write.
    next: Arc<Semaphore>,
    readers: AnyPool,
    engine_readers: AnyPool,
    together: Arc<Together>,
    gate_readers: AnyPool,
    trust: Arc<Gather<IpAddr, Trust>>,
}

const READERS: u32 = 4;
const ENGINE_READERS: u32 = 2;
const GATE_READERS: u32 = 2;
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// For ever, in terms that a clock can add.
const AS_LONG_AS_IT_TAKES: Duration = Duration::from_secs(86_400 * 365);

impl Store {
    /// Opens the SQLite file at `path`, makes it (mode 0600) if it is not there, and migrates it.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_for(path, BUSY_TIMEOUT).await
    }

    /// The same with another patience of the API.
    pub(crate) async fn open_for(path: &Path, patience: Duration) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| StoreError::File { path: path.display().to_string(), source })?;
        let options = AnyConnectOptions::from_str(&format!("sqlite://{}?mode=rw", path.display()))?;
        let writer = pool(1, AS_LONG_AS_IT_TAKES).connect_with(options.clone()).await?;
        schema::migrator(schema::Dialect::Sqlite).run(&writer).await?;
        package::complete(&mut *writer.acquire().await?).await?;
        let gate_readers = pool(GATE_READERS, patience).connect_with(options.clone()).await?;
        let engine_readers = pool(ENGINE_READERS, AS_LONG_AS_IT_TAKES).connect_with(options.clone()).await?;
        Ok(Self {
            writer,
            patience,
            next: Arc::new(Semaphore::new(1)),
            readers: pool(READERS, patience).connect_with(options.clone()).await?,
            together: Arc::new(Together::new(&engine_readers)),
            engine_readers,
            trust: Arc::new(Gather::new(&gate_readers, |connection, hosts| {
                Box::pin(certificates::trust(connection, hosts))
            })),
            gate_readers,
        })
    }

    /// Begins to write for somebody who waits for an answer: [`StoreError::Busy`] after ten seconds. Reading inside sees
    /// what was written inside.
    pub async fn begin(&self) -> Result<Transaction<'static, Any>, StoreError> {
        let begin = async {
            // Never closed.
            let _turn = self.next.acquire().await;
            self.writer.begin().await
        };
        Ok(tokio::time::timeout(self.patience, begin).await.map_err(|_elapsed| StoreError::Busy)??)
    }

    /// Begins to write for the engine, however long others write.
    pub async fn begin_patiently(&self) -> Result<Transaction<'static, Any>, StoreError> {
        Ok(self.writer.begin().await?)
    }

    /// For queries that change nothing.
    pub fn readers(&self) -> &AnyPool {
        &self.readers
    }

    /// The same for the engine, which waits as long as it takes.
    pub fn engine_readers(&self) -> &AnyPool {
        &self.engine_readers
    }

    /// Rows that the steps of many tasks ask for at the same time.
    pub fn together(&self) -> &Together {
        &self.together
    }

    /// The same for logins and for the decision whether an agent is spoken to.
    pub fn gate_readers(&self) -> &AnyPool {
        &self.gate_readers
    }

    /// Whether the agent of a host is spoken to, as it stands now.
    pub async fn trust(&self, host: IpAddr) -> Result<Arc<Trust>, StoreError> {
        Ok(self.trust.get(host).await?.unwrap_or_default())
    }

    pub async fn close(&self) {
        for readers in [&self.readers, &self.engine_readers, &self.gate_readers] {
            readers.close().await;
        }
        self.writer.close().await;
    }
}

fn pool(connections: u32, patience: Duration) -> AnyPoolOptions {
    let options = AnyPoolOptions::new().max_connections(connections).acquire_timeout(patience);
    let options = options.after_connect(|connection, _| {
        Box::pin(async move {
            // FULL, not NORMAL: an acknowledged event must survive a power cut.
            for pragma in [
                "PRAGMA journal_mode = WAL",
                "PRAGMA synchronous = FULL",
                "PRAGMA busy_timeout = 10000",
                "PRAGMA foreign_keys = ON",
                // KiB of pages per connection: what is read is small and recent.
                "PRAGMA cache_size = -1024",
            ] {
                sqlx::raw_sql(pragma).execute(&mut *connection).await?;
            }
            Ok(())
        })
    });
    // On a full disk SQLite rolls back by itself, and sqlx goes on counting a transaction that has ended. Whatever such
    // a connection began would be a savepoint, and its commit might never reach the disk; so it is closed.
    options.before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
}

/// Rows of a statement.
const LARGEST_PIECE: usize = 64;

/// Cuts into pieces whose lengths are powers of two, at most [`LARGEST_PIECE`].
fn pieces<T>(mut rest: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let length = LARGEST_PIECE.min(1_usize.checked_shl(rest.len().checked_ilog2()?)?);
        let (piece, others) = rest.split_at_checked(length)?;
        rest = others;
        Some(piece)
    })
}

/// " IN (?, ?, ...)" with these values, of which there is at least one.
fn push_in<T>(query: &mut QueryBuilder<Any>, values: impl IntoIterator<Item = T>)
where
    T: for<'q> Encode<'q, Any> + Type<Any>,
{
    query.push(" IN (");
    let mut list = query.separated(", ");
    for value in values {
        list.push_bind(value);
    }
    query.push(")");
}

/// Rows of a table by their ids, those that exist.
async fn by_ids<T>(
    connection: &mut AnyConnection,
    table: &'static str,
    ids: &[i64],
    read: impl Fn(&AnyRow) -> Result<T, StoreError>,
) -> Result<HashMap<i64, T>, StoreError> {
    let mut found = HashMap::with_capacity(ids.len());
    for piece in pieces(ids) {
        for row in by_ids_query(table, piece).build().fetch_all(&mut *connection).await? {
            found.insert(row.try_get("id")?, read(&row)?);
        }
    }
    Ok(found)
}

/// Whole rows of a table with the ids of its own.
fn by_ids_query(table: &'static str, ids: &[i64]) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("SELECT * FROM ");
    query.push(table).push(" WHERE id");
    push_in(&mut query, ids.iter().copied());
    query
}

/// Adds to the bytes that the logs of all subtasks hold together.
async fn count_log_bytes(connection: &mut AnyConnection, more: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE sequences SET next_value = next_value + ? WHERE name = 'subtask_log_bytes'")
        .bind(more)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes `count` consecutive ids from a sequence and answers the first.
pub async fn allocate(connection: &mut AnyConnection, sequence: &str, count: i64) -> Result<i64, StoreError> {
    sqlx::query("UPDATE sequences SET next_value = next_value + ? WHERE name = ?")
        .bind(count)
        .bind(sequence)
        .execute(&mut *connection)
        .await?;
    let row = sqlx::query("SELECT next_value FROM sequences WHERE name = ?")
        .bind(sequence)
        .fetch_one(&mut *connection)
        .await?;
    Ok(row.try_get::<i64, _>(0)? - count)
}

pub use crate::clock::now_micros;

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever fails on a full disk, and however often: what is committed afterwards is on disk, and what is not is not.
    #[tokio::test]
    async fn a_commit_after_a_full_disk_is_a_commit() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.db")).await.unwrap();
        let epochs = async || -> i64 {
            let row = sqlx::query("SELECT next_value FROM sequences WHERE name = 'epoch'");
            row.fetch_one(store.readers()).await.unwrap().try_get(0).unwrap()
        };
        for expected in [2, 3, 4] {
            let mut full = store.begin().await.unwrap();
            sqlx::raw_sql("PRAGMA max_page_count = 1").execute(&mut *full).await.unwrap();
            let huge = sqlx::query("INSERT INTO sequences (name, next_value) VALUES (?, 1)").bind("x".repeat(1 << 20));
            let error = StoreError::from(huge.execute(&mut *full).await.unwrap_err());
            assert!(matches!(error, StoreError::DiskFull(_)), "{error:?}");
            drop(full);

            let mut given_up = store.begin().await.unwrap();
            allocate(&mut given_up, "epoch", 100).await.unwrap();
            drop(given_up);
            let mut kept = store.begin().await.unwrap();
            allocate(&mut kept, "epoch", 1).await.unwrap();
            kept.commit().await.unwrap();
            assert_eq!(epochs().await, expected);
        }
    }

    /// What was answered survives a power cut.
    #[tokio::test]
    async fn every_connection_syncs_its_commits_to_disk() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.db")).await.unwrap();
        let pools = [&store.writer, &store.readers, &store.engine_readers, &store.gate_readers];
        for (pool, connections) in pools.into_iter().zip([1, READERS, ENGINE_READERS, GATE_READERS]) {
            let mut all = Vec::new();
            for _ in 0..connections {
                let mut connection = pool.acquire().await.unwrap();
                let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await.unwrap();
                let sync: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *connection).await.unwrap();
                // 2 is FULL.
                assert_eq!((mode.as_str(), sync), ("wal", 2));
                all.push(connection);
            }
            assert!(pool.try_acquire().is_none(), "there is a connection that was not looked at");
        }
    }

    #[test]
    fn pieces_are_powers_of_two_and_nothing_is_left_out() {
        for count in 0..300_usize {
            let all: Vec<usize> = (0..count).collect();
            let lengths: Vec<usize> = pieces(&all).map(<[usize]>::len).collect();
            assert!(lengths.iter().all(|length| length.is_power_of_two() && *length <= 64), "{lengths:?}");
            assert_eq!(pieces(&all).flatten().copied().collect::<Vec<_>>(), all);
        }
    }
}
