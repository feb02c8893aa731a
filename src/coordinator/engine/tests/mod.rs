//! Attempts of the coordinator against a whole agent on a simulated host, and the writer of the journal.

mod busy_store;
mod deadlines;
mod doubt;
mod lost_drivers;
mod reservations;
mod retention;
mod takeover;
mod turns;

use super::{
    attempt::{AgentAttempt, Outcome, PackageFile},
    driver::survive,
    journal::Journal,
    log::AttemptLog,
    metrics::EngineMetrics,
    sql::SqlTaskStore,
    store::LogText,
    waits::WaitPlace,
};
use crate::{
    agent::{
        self, Agent, Settings,
        runner::simulated::{Behaviour, Simulated, install},
    },
    coordinator::{
        agents::{AgentAddress, AgentPool},
        config::Retention,
        secrets::Vault,
        store::{
            Store,
            task::{self, AppendError, LogPosition, Origin, TaskId},
        },
    },
    graph::{Direction, Effect, Failure, NodeIndex, TaskState},
    operations::create_cluster,
    rpc::v1,
    tls::{Role, install_crypto_provider, testing::issue},
};
use sha2::{Digest as _, Sha256};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

const HOUR: Duration = Duration::from_secs(3600);
const RETENTION: Retention = Retention { logs: HOUR, log_limit_bytes: u64::MAX, tasks: HOUR };

struct Lab {
    directory: tempfile::TempDir,
    carrier: Arc<Simulated>,
    agent: Agent,
    pool: AgentPool,
    journal: Journal,
    fatal: CancellationToken,
    _shutdown: DropGuard,
}

/// Writes task 1, on whose behalf the coordinator with epoch 1 acts.
async fn claimed_task(store: &Store) {
    let plan = create_cluster(1, None).unwrap();
    let origin = Origin { creator: "c", executor: "e", trace_id: "t", epoch: 1 };
    let mut transaction = store.begin().await.unwrap();
    let state = TaskState::new(plan.graph().unwrap());
    let made = task::create(&mut transaction, &[(&plan, &state)], &origin).await.unwrap();
    assert_eq!(made[0].id, TaskId(1));
    transaction.commit().await.unwrap();
}

impl Lab {
    async fn new(behaviour: Behaviour) -> Self {
        install_crypto_provider();
        let directory = tempfile::tempdir().unwrap();
        let carrier = Simulated::new(behaviour);
        let shutdown = CancellationToken::new();
        let settings = Settings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            metrics_port: 0,
            state_dir: directory.path().join("agent"),
            root_dir: "/".into(),
            identity: issue(directory.path(), Role::Agent),
            identity_paths: None,
            reflection: false,
            retention: Duration::from_secs(3600),
            log_limit_bytes: 1 << 30,
            grace: Duration::from_secs(5),
        };
        let agent = agent::start(settings, carrier.clone(), carrier.clone(), shutdown.clone()).await.unwrap();
        let pool = AgentPool::new(&issue(directory.path(), Role::Coordinator)).unwrap();
        let store = Store::open(&directory.path().join("coordinator.db")).await.unwrap();
        let vault = Arc::new(Vault::load_or_create(&directory.path().join("secret.key")).unwrap());
        let tasks = Arc::new(SqlTaskStore {
            store,
            vault,
            packages_dir: directory.path().into(),
            retention: tokio::sync::watch::channel(RETENTION).1,
        });
        claimed_task(&tasks.store).await;
        let metrics = EngineMetrics::register(&prometheus::Registry::new()).unwrap();
        let fatal = CancellationToken::new();
        let (journal, _writer) = Journal::start(tasks, metrics, shutdown.clone(), fatal.clone());
        Self { directory, carrier, agent, pool, journal, fatal, _shutdown: shutdown.drop_guard() }
    }

    fn attempt(&self, key: &v1::OperationKey) -> AgentAttempt {
        AgentAttempt {
            agent: self.pool.agent(AgentAddress(self.agent.address())),
            permits: Arc::new(Semaphore::new(1)),
            step: install(),
            direction: Direction::Execute,
            key: key.clone(),
            epoch: 1,
            undoes: None,
            secrets: Vec::new(),
            packages: Vec::new(),
            deadline: Instant::now() + Duration::from_secs(60),
            cancel: CancellationToken::new(),
            place: WaitPlace::new(
                Arc::default(),
                TaskId(1),
                NodeIndex(0),
                i64::MAX,
                crate::coordinator::engine::turns::alone(),
            ),
            submitted: false.into(),
        }
    }

    async fn run(&self, attempt: AgentAttempt) -> Outcome {
        let mut log = AttemptLog::new(
            self.journal.clone(),
            (TaskId(1), 1),
            NodeIndex(0),
            attempt.key.attempt,
            LogPosition::default(),
        );
        tokio::time::timeout(Duration::from_secs(60), attempt.run(&mut log)).await.unwrap()
    }
}

fn fresh_key() -> v1::OperationKey {
    v1::OperationKey { operation_id: uuid::Uuid::now_v7().to_string(), attempt: 1 }
}

fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other @ (Outcome::Succeeded { .. } | Outcome::Abandoned) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_success_counts_also_when_it_is_learned_after_the_deadline() {
    let lab = Lab::new(Behaviour::Succeed).await;
    let key = fresh_key();
    assert!(matches!(lab.run(lab.attempt(&key)).await, Outcome::Succeeded { .. }));
    // The coordinator was away until the deadline had passed.
    let late = AgentAttempt { deadline: Instant::now(), ..lab.attempt(&key) };
    assert!(matches!(lab.run(late).await, Outcome::Succeeded { effect: Effect::Done, .. }));
    assert_eq!(lab.carrier.calls().len(), 1);
}

#[tokio::test]
async fn past_the_deadline_nothing_is_begun() {
    let lab = Lab::new(Behaviour::Succeed).await;
    let late = AgentAttempt { deadline: Instant::now(), ..lab.attempt(&fresh_key()) };
    let failure = failure(lab.run(late).await);
    assert_eq!((failure.reason.as_str(), failure.effect), ("TIMEOUT", Effect::None));
    assert!(lab.carrier.calls().is_empty());
}

#[tokio::test]
async fn an_attempt_that_waits_for_its_turn_can_be_canceled() {
    let lab = Lab::new(Behaviour::Succeed).await;
    let waiting = AgentAttempt { permits: Arc::new(Semaphore::new(0)), ..lab.attempt(&fresh_key()) };
    waiting.cancel.cancel();
    let failure = failure(lab.run(waiting).await);
    assert_eq!((failure.reason.as_str(), failure.effect), ("CANCELED", Effect::None));
    assert!(lab.carrier.calls().is_empty());
}

#[tokio::test]
async fn an_operator_learns_that_the_agent_obeys_another_coordinator() {
    let lab = Lab::new(Behaviour::Succeed).await;
    let newer = AgentAttempt { epoch: 5, ..lab.attempt(&fresh_key()) };
    assert!(matches!(lab.run(newer).await, Outcome::Succeeded { .. }));
    let older = AgentAttempt { epoch: 4, ..lab.attempt(&fresh_key()) };
    assert_eq!(failure(lab.run(older).await).reason, "STALE_EPOCH");
    assert_eq!(lab.carrier.calls().len(), 1);
}

#[tokio::test]
async fn a_write_that_the_store_refuses_costs_nobody_else() {
    let lab = Lab::new(Behaviour::Succeed).await;
    let text = |part| LogText {
        task: TaskId(1),
        epoch: 1,
        node: NodeIndex(0),
        attempt: 1,
        position: LogPosition { next_part: part, ..LogPosition::default() },
        text: "text".into(),
    };
    let log = async |part| lab.journal.room().await.unwrap().log(text(part));
    log(0).await.await.unwrap().unwrap();
    // The second of these has the key of the first: the group is undone, and written one by one.
    let (again, next) = tokio::join!(log(0), log(1));
    assert!(matches!(again.await.unwrap(), Err(AppendError::Store(_))));
    next.await.unwrap().unwrap();
    assert!(!lab.fatal.is_cancelled());
    assert!(lab.directory.path().join("coordinator.db").exists());
}

#[tokio::test]
async fn an_agent_that_may_have_begun_before_is_not_taken_for_idle_when_its_package_cannot_be_brought() {
    let lab = Lab::new(Behaviour::Succeed).await;
    let present = lab.directory.path().join("package");
    std::fs::write(&present, "content").unwrap();
    for (path, reason) in [(lab.directory.path().join("missing"), "PACKAGE_UNREADABLE"), (present, "BAD_REQUEST")] {
        for (submitted, effect) in [(false, Effect::None), (true, Effect::Unknown)] {
            let sha256 = "0".repeat(64).parse().unwrap();
            let package = PackageFile { name: "no name of a package".into(), sha256, path: path.clone() };
            let packages = vec![package];
            let attempt = AgentAttempt { packages, submitted: submitted.into(), ..lab.attempt(&fresh_key()) };
            let failure = failure(lab.run(attempt).await);
            assert_eq!((failure.reason.as_str(), failure.effect), (reason, effect));
        }
    }
    assert!(lab.carrier.calls().is_empty());
}

#[tokio::test]
async fn packages_to_all_hosts_share_one_bound_of_memory() {
    let lab = Lab::new(Behaviour::Succeed).await;
    let path = lab.directory.path().join("package");
    let content = vec![7; 3 << 20];
    std::fs::write(&path, &content).unwrap();
    let digest: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let agent = lab.pool.agent(AgentAddress(lab.agent.address()));
    let mut told = Vec::new();
    let all = lab.pool.transfers().available_permits();
    let others = lab.pool.transfers().acquire_many(all.try_into().unwrap()).await.unwrap();
    let name = "obproxy-1.9.1.1-1919579.el7.x86_64.rpm";
    let mut put = Box::pin(agent.put_package(&path, name, &digest, |there, _| told.push(there)));
    let waits = tokio::time::timeout(Duration::from_millis(200), &mut put).await;
    assert!(waits.is_err(), "there is no room for another chunk");
    drop(others);
    put.as_mut().await.unwrap();
    drop(put);
    assert_eq!(lab.pool.transfers().available_permits(), all);
    assert_eq!(told, [0, 1 << 20, 2 << 20, 3 << 20]);
}

#[tokio::test]
async fn a_panic_ends_its_attempt_only() {
    let outcome = survive(async { panic!("in the attempt") }).await;
    let failure = failure(outcome);
    assert_eq!((failure.reason.as_str(), failure.effect), ("PANIC", Effect::Unknown));
}
