//! A store that is busy or full costs time, no subtask, and no part of a log without a word.

use super::{Lab, RETENTION, claimed_task, issue};
use crate::{
    agent::runner::simulated::Behaviour,
    coordinator::{
        agents::AgentPool,
        engine::{
            AttemptLog, EngineMetrics, LocalRun, LocalSteps as _, Outcome, SqlTaskStore, journal::Journal,
            waits::WaitPlace,
        },
        local::SqlLocalSteps,
        secrets::Vault,
        store::{
            Store, StoreError,
            host::{self, HostDetails, HostStatus},
            task::{self, LogPosition, TaskId},
        },
    },
    graph::{Direction, NodeIndex},
    rpc::v1::DescribeHostResponse,
    steps::{CoordinatorStep, FinishClusterOffline, UpdateHostStatus},
    tls::Role,
};
use std::{net::Ipv4Addr, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// For how long requests of the API wait for a connection here.
const PATIENCE: Duration = Duration::from_millis(300);

struct Rows {
    _lab: Lab,
    store: Store,
    steps: SqlLocalSteps,
    log: AttemptLog,
}

impl Rows {
    async fn new() -> Self {
        let lab = Lab::new(Behaviour::Succeed).await;
        let directory = lab.directory.path();
        let store = Store::open_for(&directory.join("rows.db"), PATIENCE).await.unwrap();
        let vault = Arc::new(Vault::load_or_create(&directory.join("rows.key")).unwrap());
        let tasks = Arc::new(SqlTaskStore {
            store: store.clone(),
            vault,
            packages_dir: directory.into(),
            retention: tokio::sync::watch::channel(RETENTION).1,
        });
        let metrics = EngineMetrics::register(&prometheus::Registry::new()).unwrap();
        let (journal, _) = Journal::start(tasks, metrics, CancellationToken::new(), CancellationToken::new());
        let log = AttemptLog::new(journal, (TaskId(1), 1), NodeIndex(0), 1, LogPosition::default());
        let agents = Arc::new(AgentPool::new(&issue(directory, Role::Coordinator)).unwrap());
        let steps = SqlLocalSteps { store: store.clone(), agents, packages_dir: directory.into() };
        let mut transaction = store.begin().await.unwrap();
        let address = Ipv4Addr::LOCALHOST.into();
        host::insert(&mut transaction, address, 1, 1, &HostDetails::default()).await.unwrap();
        transaction.commit().await.unwrap();
        claimed_task(&store).await;
        Self { _lab: lab, store, steps, log }
    }

    async fn make_available(&mut self) -> Outcome {
        let step = CoordinatorStep::UpdateHostStatus(UpdateHostStatus { host_id: 1 });
        self.execute(&step, &CancellationToken::new()).await
    }

    async fn execute(&mut self, step: &CoordinatorStep, cancel: &CancellationToken) -> Outcome {
        let run = LocalRun {
            step,
            direction: Direction::Execute,
            deadline: Instant::now() + 100 * PATIENCE,
            cancel,
            place: &WaitPlace::new(
                Arc::default(),
                TaskId(1),
                NodeIndex(0),
                i64::MAX,
                crate::coordinator::engine::turns::alone(),
            ),
        };
        self.steps.run(run, &mut self.log).await
    }

    /// Waits until the journal has done what it was asked.
    async fn settled(&self) {
        self.log.journal().beat().await.unwrap();
    }

    async fn kept(&self) -> String {
        self.settled().await;
        let query = sqlx::query_scalar::<_, String>("SELECT text FROM subtask_logs ORDER BY part");
        query.fetch_all(self.store.readers()).await.unwrap().concat()
    }
}

#[tokio::test]
async fn a_step_waits_for_a_store_in_which_others_write_and_keeps_its_log() {
    let mut rows = Rows::new().await;
    let (writing, reading) = (rows.store.begin().await.unwrap(), rows.store.engine_readers().clone());
    let all = [reading.acquire().await.unwrap(), reading.acquire().await.unwrap()];
    let store = rows.store.clone();
    // The step has been waiting longer than anybody who is told that the store is busy.
    let others = async {
        assert!(matches!(store.begin().await, Err(StoreError::Busy)));
        drop((writing, all));
    };
    let (outcome, ()) = tokio::join!(rows.make_available(), others);
    assert!(matches!(outcome, Outcome::Succeeded { .. }), "{outcome:?}");
    assert!(rows.kept().await.ends_with("host 127.0.0.1 is AVAILABLE\n"));
}

/// As an attempt does at its deadline, when it still has something to say.
#[tokio::test]
async fn who_gives_up_while_a_log_waits_for_the_store_costs_it_nothing() {
    let mut rows = Rows::new().await;
    let writing = rows.store.begin().await.unwrap();
    rows.log.line("first").await.unwrap();
    assert!(timeout(PATIENCE, rows.log.line("given up")).await.is_err());
    assert!(timeout(PATIENCE, rows.log.agent_bytes(0, b"second\n")).await.is_err());
    writing.rollback().await.unwrap();
    rows.log.agent_bytes(0, b"second\n").await.unwrap();
    rows.log.line("third").await.unwrap();
    assert_eq!(rows.kept().await, "first\nsecond\nthird\n");
}

/// What it had to say could take the place of what the rightful one says.
#[tokio::test]
async fn a_coordinator_that_lost_a_task_adds_nothing_to_its_logs() {
    let mut rows = Rows::new().await;
    let mut other = rows.store.begin().await.unwrap();
    task::claim(&mut other, TaskId(1), 2).await.unwrap();
    other.commit().await.unwrap();
    rows.log.line("stale").await.unwrap();
    assert_eq!(rows.kept().await, "");
}

#[tokio::test]
async fn a_step_of_a_task_that_another_coordinator_has_claimed_changes_no_row() {
    let mut rows = Rows::new().await;
    let mut other = rows.store.begin().await.unwrap();
    task::claim(&mut other, TaskId(1), 2).await.unwrap();
    other.commit().await.unwrap();
    let outcome = rows.make_available().await;
    assert!(matches!(outcome, Outcome::Abandoned), "{outcome:?}");
    let mut reader = rows.store.readers().acquire().await.unwrap();
    assert_eq!(host::get(&mut reader, 1).await.unwrap().unwrap().status, HostStatus::New);
}

#[tokio::test]
async fn requests_are_told_that_the_store_is_busy_and_stand_not_before_the_engine() {
    let rows = Rows::new().await;
    let writing = rows.store.begin().await.unwrap();
    let requests: Vec<_> = (0..100)
        .map(|_| {
            tokio::spawn({
                let store = rows.store.clone();
                async move { store.begin().await.map(drop) }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    let engine = tokio::spawn({
        let store = rows.store.clone();
        async move { store.begin_patiently().await.map(drop) }
    });
    tokio::task::yield_now().await;
    // It begins to wait behind the engine.
    assert!(matches!(rows.store.begin().await, Err(StoreError::Busy)));
    for request in requests {
        assert!(matches!(request.await.unwrap(), Err(StoreError::Busy)));
    }
    assert!(!engine.is_finished());
    writing.rollback().await.unwrap();
    engine.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_log_tells_what_the_store_did_not_take() {
    let mut rows = Rows::new().await;
    let write = async |statement: &'static str| {
        let mut writer = rows.store.begin().await.unwrap();
        sqlx::query(statement).execute(&mut *writer).await.unwrap();
        writer.commit().await.unwrap();
    };
    rows.log.line("before").await.unwrap();
    rows.settled().await;
    // The place of the next part is taken, so it is refused, as it is by a full disk.
    write("INSERT INTO subtask_logs VALUES (1, 0, 1, 1, 'in the way', 0)").await;
    for line in ["one", "two"] {
        rows.log.line(line).await.unwrap();
    }
    rows.settled().await;
    write("DELETE FROM subtask_logs WHERE part = 1").await;
    rows.log.line("after").await.unwrap();
    let missing = "[8 bytes are missing here: the coordinator's store could not take them]";
    assert_eq!(rows.kept().await, format!("before\n{missing}\nafter\n"));
}

#[tokio::test]
async fn what_an_agent_says_of_its_host_leaves_the_status_as_it_is_by_then() {
    let rows = Rows::new().await;
    let mut transaction = rows.store.begin().await.unwrap();
    // While the agent was asked, the host was found to be away.
    host::set_status(&mut transaction, 1, HostStatus::Offline).await.unwrap();
    let facts = DescribeHostResponse { hostname: "db1".into(), ..DescribeHostResponse::default() };
    let host = host::told(&mut transaction, 1, &facts).await.unwrap().unwrap();
    assert_eq!((host.status, host.details.hostname.as_str()), (HostStatus::Offline, "db1"));
    assert_eq!(host::get(&mut transaction, 1).await.unwrap().unwrap().status, HostStatus::Offline);
}

/// Its passwords are gone, so nothing of the task could be taken back after it.
#[tokio::test]
async fn a_cancel_comes_too_late_for_the_deletion_of_a_cluster() {
    let mut rows = Rows::new().await;
    let canceled = CancellationToken::new();
    canceled.cancel();
    let outcome = rows.execute(&CoordinatorStep::UpdateHostStatus(UpdateHostStatus { host_id: 1 }), &canceled).await;
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    let last = CoordinatorStep::FinishClusterOffline(FinishClusterOffline { cluster_id: 7 });
    let outcome = rows.execute(&last, &canceled).await;
    assert!(matches!(outcome, Outcome::Succeeded { .. }), "{outcome:?}");
    assert!(rows.kept().await.contains("proxy cluster 7 is not registered any more"));
}
