//! What the machine gives without the coordinator.

use oblet::coordinator::agents::Agent;
use sqlx::{ConnectOptions as _, Executor as _, sqlite::SqliteConnectOptions};
use std::{
    path::Path,
    time::{Duration, Instant},
};

const TIME: Duration = Duration::from_secs(2);
const CALLERS: usize = 32;

/// Transactions of one row per second, each synced, with the settings of the coordinator's store.
pub(crate) async fn synced_commits(directory: &Path) -> f64 {
    let options = SqliteConnectOptions::new().filename(directory.join("floor.db")).create_if_missing(true);
    let mut connection = options
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
        .synchronous(sqlx::sqlite::SqliteSynchronous::Full)
        .connect()
        .await
        .unwrap();
    connection.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, payload TEXT NOT NULL)").await.unwrap();
    let (begin, mut count) = (Instant::now(), 0_u32);
    while begin.elapsed() < TIME {
        connection
            .execute("INSERT INTO events (payload) VALUES ('{\"kind\":\"dispatched\",\"node\":1}')")
            .await
            .unwrap();
        count += 1;
    }
    f64::from(count) / begin.elapsed().as_secs_f64()
}

/// Calls per second to one agent over mutual TLS, both ends on this machine.
pub(crate) async fn calls(agent: &Agent) -> f64 {
    agent.describe_host().await.unwrap();
    let begin = Instant::now();
    let callers = (0..CALLERS).map(|_| {
        let agent = agent.clone();
        tokio::spawn(async move {
            let mut count = 0_u32;
            while begin.elapsed() < TIME {
                agent.describe_host().await.unwrap();
                count += 1;
            }
            count
        })
    });
    let mut total = 0;
    for caller in callers.collect::<Vec<_>>() {
        total += caller.await.unwrap();
    }
    f64::from(total) / begin.elapsed().as_secs_f64()
}
