use super::{Accepted, Canceled, Journal, JournalError, OpenError, Unfinished};
use crate::agent::{
    operation::{Order, Outcome, Phase},
    runner::simulated::{install, order, refresh, sync_parameters},
};
use futures_util::future::join_all;
use sqlx::AssertSqlSafe;
use std::{fs, os::unix::fs::PermissionsExt as _};

async fn run(journal: &Journal, sql: &str) {
    let sql = sql.to_owned();
    journal
        .write(|connection| {
            Box::pin(async move { sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop) })
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn files_are_for_the_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let (journal, _writer) = Journal::open(&state).await.unwrap();
    journal.accept(&order(install())).await.unwrap();
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    let names: Vec<_> = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap()).collect();
    assert!(names.len() >= 3, "{names:?}");
    for entry in names {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
    }
}

/// What was answered survives a power cut.
#[tokio::test]
async fn the_journal_syncs_its_commits_to_disk() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _writer) = Journal::open(directory.path()).await.unwrap();
    let pragmas = journal.read(|connection| {
        Box::pin(async move {
            let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await?;
            let sync: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(connection).await?;
            Ok((mode, sync))
        })
    });
    // 2 is FULL.
    assert_eq!(pragmas.await.unwrap(), ("wal".into(), 2));
}

#[tokio::test]
async fn waiting_changes_are_committed_together() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _writer) = Journal::open(directory.path()).await.unwrap();
    let cancels = join_all((1..=64).map(|epoch| journal.cancel(order(refresh()).key, epoch))).await;
    assert!(cancels.into_iter().all(|canceled| matches!(canceled.unwrap(), Canceled::BeforeItCame(_))));
    assert_eq!(journal.highest_epoch(), 64);
    let commits = journal.commits().update();
    assert!(commits < 64, "{commits} commits for 64 changes");
}

#[tokio::test]
async fn a_full_disk_undoes_the_change_and_the_journal_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _writer) = Journal::open(directory.path()).await.unwrap();
    // SQLite never lowers the limit below the size of the file.
    run(&journal, "PRAGMA max_page_count = 1").await;
    let mut accepted = Vec::new();
    let refused = loop {
        let order = Order { fingerprint: "f".repeat(4000), ..order(sync_parameters()) };
        match journal.accept(&order).await {
            Ok(Accepted::Fresh(record)) => {
                journal.finish(record.position, &Outcome::interrupted("X", "x")).await.ok();
                accepted.push(order.key);
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => break (error, order.key),
        }
        assert!(accepted.len() < 1000);
    };
    assert!(matches!(refused.0, JournalError::DiskFull), "{:?}", refused.0);
    assert!(journal.get(refused.1).await.unwrap().is_none());
    run(&journal, "PRAGMA max_page_count = 1000000").await;
    assert!(matches!(journal.accept(&order(refresh())).await.unwrap(), Accepted::Fresh(_)));
}

#[tokio::test]
async fn any_other_failure_stops_the_journal_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, writer) = Journal::open(directory.path()).await.unwrap();
    let kept = order(refresh());
    journal.accept(&kept).await.unwrap();
    let broken = journal.write(|connection| {
        Box::pin(async move { sqlx::query("INSERT INTO nowhere VALUES (1)").execute(connection).await.map(drop) })
    });
    assert!(matches!(broken.await, Err(JournalError::Stopped)));
    assert!(writer.await.unwrap().is_err());
    assert!(matches!(journal.accept(&order(install())).await, Err(JournalError::Stopped)));
    let (journal, _writer) = Journal::open(directory.path()).await.unwrap();
    assert_eq!(journal.get(kept.key).await.unwrap().unwrap().phase, Phase::Accepted);
}

#[tokio::test]
async fn an_unreadable_record_is_told_apart_from_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _writer) = Journal::open(directory.path()).await.unwrap();
    let (damaged, sealed, good) = (order(install()), order(sync_parameters()), order(refresh()));
    for order in [&damaged, &sealed, &good] {
        assert!(matches!(journal.accept(order).await.unwrap(), Accepted::Fresh(_)));
    }
    run(&journal, "UPDATE operations SET step = '{\"kind\":\"unheard_of\"}' WHERE position = 1").await;
    run(&journal, "UPDATE operations SET secrets = x'00112233445566778899aabbccddeeff00112233' WHERE position = 2")
        .await;
    let unfinished = journal.unfinished().await.unwrap();
    assert!(matches!(unfinished[0], Unfinished::Unreadable { position: 1, .. }));
    assert!(matches!(unfinished[1], Unfinished::Unreadable { position: 2, .. }));
    assert!(matches!(&unfinished[2], Unfinished::Readable(resume) if resume.order.key == good.key));
}

#[tokio::test]
async fn pages_follow_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _writer) = Journal::open(directory.path()).await.unwrap();
    for step in [install(), sync_parameters(), refresh()] {
        journal.accept(&order(step)).await.unwrap();
    }
    let first = journal.list(0, 2, true).await.unwrap();
    assert_eq!((first.records.len(), first.next), (2, Some(2)));
    let last = journal.list(2, 2, true).await.unwrap();
    assert_eq!((last.records.len(), last.next), (1, None));
}

#[tokio::test]
async fn a_damaged_sequence_number_stops_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _writer) = Journal::open(directory.path()).await.unwrap();
    let Accepted::Fresh(record) = journal.accept(&order(install())).await.unwrap() else { panic!("it is fresh") };
    run(&journal, "UPDATE operations SET sequence = 0").await;
    assert!(journal.advance(record.position, Phase::Starting, Some("unit".into())).await.unwrap());
    assert!(journal.finish(record.position, &Outcome::interrupted("X", "x")).await.unwrap());
    assert_eq!(journal.events(record.position, 0).await.unwrap().last().unwrap().phase, Phase::Finished);
}

#[tokio::test]
async fn a_file_that_is_no_journal_is_named_and_left_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.db");
    let content = "these are the minutes of the last meeting\n".repeat(300);
    fs::write(&path, &content).unwrap();
    let error = Journal::open(directory.path()).await.err().unwrap();
    assert!(matches!(error, OpenError::Database { .. }), "{error:?}");
    let told = crate::telemetry::chain(&error);
    assert!(told.contains("journal.db") && told.contains("not a database"), "{told}");
    assert_eq!(fs::read_to_string(&path).unwrap(), content);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_journal_of_a_later_agent_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, writer) = Journal::open(directory.path()).await.unwrap();
    run(&journal, "UPDATE meta SET value = 99 WHERE name = 'schema'").await;
    drop(journal);
    writer.await.unwrap().unwrap();
    let before = fs::read(directory.path().join("journal.db")).unwrap();
    let error = Journal::open(directory.path()).await.err().unwrap();
    assert!(matches!(error, OpenError::Newer { found: 99, .. }));
    assert!(error.to_string().contains("schema version 99"), "{error}");
    assert_eq!(fs::read(directory.path().join("journal.db")).unwrap(), before);
}
