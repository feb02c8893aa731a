//! A commit of which nobody knows whether it is on the disk.

use super::Lab;
use crate::{
    agent::runner::simulated::Behaviour,
    coordinator::{
        engine::journal::Closed,
        store::{Store, task::TaskId},
    },
};
use sqlx::AnyConnection;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

async fn orphan(connection: &mut AnyConnection) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO children VALUES (1)").execute(connection).await.map(drop)
}

#[tokio::test]
async fn a_commit_in_doubt_ends_the_program_and_is_not_written_again() {
    let lab = Lab::new(Behaviour::Succeed).await;
    let store = Store::open(&lab.directory.path().join("coordinator.db")).await.unwrap();
    let mut transaction = store.begin().await.unwrap();
    for statement in [
        "CREATE TABLE parents (id INTEGER PRIMARY KEY)",
        // Looked at by the commit, and not before.
        "CREATE TABLE children (parent INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)",
    ] {
        sqlx::query(statement).execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();

    let count = Arc::<AtomicU32>::default();
    let counter = Arc::clone(&count);
    let change = lab.journal.change((TaskId(1), 1), move |connection| {
        counter.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { Ok(orphan(connection).await?) })
    });
    assert!(matches!(change.await, Err(Closed)), "nobody is told that it was, or was not, written");
    tokio::time::timeout(Duration::from_secs(60), lab.fatal.cancelled()).await.expect("the program ends");
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert!(matches!(lab.journal.beat().await, Err(Closed)), "nothing is written after it");
}
