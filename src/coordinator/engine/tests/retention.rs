//! Tasks, their events, their logs and the audit log do not grow for ever, and hosts that are gone hold nobody up.

use super::{
    Lab, RETENTION,
    lost_drivers::start,
    takeover::{chain, create, open},
};
use crate::{
    agent::runner::simulated::{Behaviour, install},
    coordinator::{
        engine::{SqlTaskStore, TaskStore as _, acknowledge},
        secrets::Vault,
        store::{
            Store,
            agent::{certificates, enrolment_tokens},
            audit::{self, Change},
            host, now_micros,
            requests::{self, RequestKey},
            task::{self, Draft, LogPosition, TaskId},
        },
    },
    graph::{Direction, Effect, Event, Failure, NodeIndex, TaskState},
    operations::{ObjectKind, ObjectLock, TaskPlan},
    steps::{Finish, Step},
};
use sqlx::{AssertSqlSafe, Row as _};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

async fn count(store: &Store, table: &str) -> i64 {
    let query = AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
    sqlx::query(query).fetch_one(store.readers()).await.unwrap().get(0)
}

/// Lets the subtasks of a task end, at a time in microseconds since 1970.
async fn end(store: &Store, task: TaskId, plan: &TaskPlan, failure: Option<Failure>, at: i64) {
    let mut state = TaskState::new(plan.graph().unwrap());
    let mut draft = Draft::new(&state);
    let attempt = 1;
    for node in (0..u32::try_from(plan.nodes.len()).unwrap()).map(NodeIndex) {
        draft.apply(&mut state, Event::Dispatched { node, attempt, direction: Direction::Execute }).unwrap();
        let ended = match failure.clone() {
            Some(failure) => Event::Failed { node, attempt, failure },
            None => Event::Succeeded { node, attempt, effect: Effect::Done, output: Vec::new() },
        };
        draft.apply(&mut state, ended).unwrap();
    }
    let mut transaction = store.begin().await.unwrap();
    task::append(&mut transaction, &draft.finish((task, 0, 1), &state, at)).await.unwrap();
    let log = (task, NodeIndex(0), attempt);
    task::append_log(&mut transaction, log, LogPosition::default(), "a line\n").await.unwrap();
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn old_tasks_go_with_all_that_is_theirs_and_those_that_somebody_needs_stay() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let plan = chain(vec![Step::from(Finish {})]);
    let locked = TaskPlan { locks: vec![ObjectLock::exclusive(ObjectKind::Host, 1)], ..plan.clone() };
    let failure = Failure::example(Effect::None);
    let waits_for_a_decision = create(&store, &locked, false).await;
    end(&store, waits_for_a_decision, &locked, Some(failure.clone()), 1).await;
    let runs = create(&store, &plan, true).await;
    for number in 0..50 {
        let task = create(&store, &plan, false).await;
        end(&store, task, &plan, (number % 2 == 0).then(|| failure.clone()), 10 + number).await;
    }
    let young = create(&store, &plan, false).await;
    end(&store, young, &plan, None, now_micros()).await;
    let newest = create(&store, &plan, false).await;
    end(&store, newest, &plan, None, 5).await;

    assert_eq!(task::expire(&store, 1_000, 1_000).await.unwrap(), 0, "there are not so many");
    let mut calls = Vec::new();
    while let Some(removed) = Some(task::expire(&store, 1_000, 1).await.unwrap()).filter(|removed| *removed > 0) {
        calls.push(removed);
    }
    assert_eq!(calls, [20, 20, 10]);
    let rows = sqlx::query("SELECT id FROM tasks ORDER BY id").fetch_all(store.readers()).await.unwrap();
    let left: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(left, [waits_for_a_decision, runs, young, newest].map(|task| task.0));
    assert_eq!(count(&store, "subtasks").await, 4);
    assert_eq!(count(&store, "subtask_logs").await, 3);
    assert_eq!(count(&store, "task_events WHERE task_id NOT IN (SELECT id FROM tasks)").await, 0);
    let bytes = sqlx::query("SELECT next_value FROM sequences WHERE name = 'subtask_log_bytes'");
    assert_eq!(bytes.fetch_one(store.readers()).await.unwrap().get::<i64, _>(0), 21);
}

#[tokio::test]
async fn the_audit_log_is_cut_in_batches() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let mut transaction = store.begin().await.unwrap();
    for _ in 0..1_200 {
        let change = Change { user: "admin", action: "task.retry", object: "task 1", detail: "", trace_id: "t" };
        audit::write(&mut transaction, &[change]).await.unwrap();
    }
    sqlx::query("UPDATE audit_events SET created_at = id WHERE id <= 1100").execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    let mut removed = Vec::new();
    for _ in 0..4 {
        removed.push(audit::expire(&store, 1_101).await.unwrap());
    }
    assert_eq!(removed, [500, 500, 100, 0]);
    assert_eq!(count(&store, "audit_events").await, 100);
}

#[tokio::test]
async fn hosts_that_are_gone_hold_up_neither_others_nor_the_next_round() {
    let lab = Lab::new(Behaviour::Succeed).await;
    let store = open(lab.directory.path()).await;
    let mut plan = chain(vec![Step::Agent(install()); 20]);
    let mut transaction = store.begin().await.unwrap();
    for (number, node) in (1_u8..).zip(&mut plan.nodes) {
        // The last of them is there; nobody listens at the addresses of the others.
        let address = if number == 20 { lab.agent.address() } else { ([127, 0, 0, number + 1], 9).into() };
        let details = host::HostDetails::default();
        let host = host::insert(&mut transaction, address.ip(), address.port(), 1, &details).await.unwrap();
        node.host_id = Some(host.id);
    }
    transaction.commit().await.unwrap();
    let (engine, _shutdown) = start(lab.directory.path(), &store, 0).await;
    let task = create(&store, &plan, false).await;
    end(&store, task, &plan, None, 1).await;
    for limit in [Duration::from_secs(10), Duration::from_secs(1)] {
        let begin = Instant::now();
        acknowledge::again(&engine.shared, task).await;
        assert!(begin.elapsed() < limit, "{:?}", begin.elapsed());
        let quiet: Vec<i64> = (1..=20).filter(|host| engine.shared.quiet.rests(host)).collect();
        assert_eq!(quiet, (1..20).collect::<Vec<_>>());
    }
    assert_eq!(task::unacknowledged(store.readers()).await.unwrap(), [task]);
}

#[tokio::test]
async fn tokens_and_certificates_go_when_they_have_expired_long_ago() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let mut rows = store.begin().await.unwrap();
    for statement in [
        "INSERT INTO enrolment_tokens (id, token_hash, address, any_source, creator, status, created_at, expires_at) \
         VALUES (1, 'a', '192.0.2.1', 0, 'c', 'USED', 1, 10), (2, 'b', '192.0.2.1', 0, 'c', 'OPEN', 1, 10), \
         (3, 'c', '192.0.2.1', 0, 'c', 'USED', 1, 20)",
        "INSERT INTO agent_certificates (serial, address, fingerprint, status, issued_at, not_before, not_after) VALUES \
         ('1', '192.0.2.1', 'f', 'REPLACED', 1, 1, 10), ('2', '192.0.2.1', 'f', 'REVOKED', 1, 1, 10), \
         ('3', '192.0.2.1', 'f', 'REPLACED', 1, 1, 20), ('4', '192.0.2.1', 'f', 'CURRENT', 1, 1, 10)",
    ] {
        sqlx::query(statement).execute(&mut *rows).await.unwrap();
    }
    assert_eq!(enrolment_tokens::expire(&mut rows, 15).await.unwrap(), 2);
    assert_eq!(certificates::expire(&mut rows, 15).await.unwrap(), 2, "one that agents are accepted with stays");
    rows.commit().await.unwrap();
    assert_eq!((count(&store, "enrolment_tokens").await, count(&store, "agent_certificates").await), (1, 2));
}

/// A client that sends its request again within a week makes no second task.
#[tokio::test]
async fn the_key_of_a_request_is_known_for_seven_days() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    const HOUR: i64 = 3_600_000_000;
    let key = |name: &str| RequestKey { user: "admin".into(), key: name.into() };
    let mut transaction = store.begin().await.unwrap();
    for (name, age) in [("young", 7 * 24 - 1), ("old", 7 * 24 + 1)] {
        requests::insert(&mut transaction, &key(name), "f", &[TaskId(1)]).await.unwrap();
        let created = now_micros() - age * HOUR;
        let change = sqlx::query("UPDATE idempotent_requests SET created_at = ? WHERE request_key = ?");
        change.bind(created).bind(name).execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
    let tasks = SqlTaskStore {
        store: store.clone(),
        vault: Arc::new(Vault::load_or_create(&directory.path().join("secret.key")).unwrap()),
        packages_dir: directory.path().into(),
        retention: tokio::sync::watch::channel(RETENTION).1,
    };
    tasks.expire().await.unwrap();
    let mut connection = store.readers().acquire().await.unwrap();
    assert!(requests::find(&mut connection, &key("young")).await.unwrap().is_some());
    assert!(requests::find(&mut connection, &key("old")).await.unwrap().is_none());
}
