//! What happens to tasks when their coordinator stops, or is taken for dead while it is not.

use super::{Lab, RETENTION, issue};
use crate::{
    agent::{
        operation::Phase,
        runner::simulated::{Behaviour, install, refresh},
    },
    coordinator::{
        agents::AgentPool,
        engine::{
            CommandError, Engine, EngineMetrics, EngineParts, LocalRun, LocalSteps, SqlTaskStore, attempt::Outcome,
            log::AttemptLog,
        },
        secrets::Vault,
        store::{
            Store, host,
            task::{self, Draft, Origin, TaskId},
        },
    },
    graph::{Command, Direction, Effect, Event, NodeIndex, TaskState, TaskStatus},
    operations::{Context, PlannedNode, TaskPlan},
    steps::{Finish, Step},
    tls::Role,
};
use futures_util::future::BoxFuture;
use sqlx::Row as _;
use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Steps of the coordinator that succeed at once.
pub(super) struct NothingToDo;

impl LocalSteps for NothingToDo {
    fn run<'a>(&'a self, _run: LocalRun<'a>, _log: &'a mut AttemptLog) -> BoxFuture<'a, Outcome> {
        Box::pin(async { Outcome::Succeeded { effect: Effect::None, output: Vec::new() } })
    }
}

/// A chain of steps; those of agents run on host 1.
pub(super) fn chain(steps: Vec<Step>) -> TaskPlan {
    let node = |(index, step): (u32, Step)| PlannedNode {
        host_id: matches!(step, Step::Agent(_)).then_some(1),
        step,
        series_id: index,
        parallel_index: -1,
        upstreams: index.checked_sub(1).map(NodeIndex).into_iter().collect(),
        execute_id: Uuid::now_v7(),
        undo_id: Uuid::now_v7(),
    };
    TaskPlan {
        name: "test".into(),
        context: Context::default(),
        nodes: (0..).zip(steps).map(node).collect(),
        ..TaskPlan::default()
    }
}

pub(super) async fn open(directory: &Path) -> Store {
    Store::open(&directory.join("tasks.db")).await.unwrap()
}

pub(super) async fn create(store: &Store, plan: &TaskPlan, dispatched: bool) -> TaskId {
    let mut transaction = store.begin().await.unwrap();
    let mut state = TaskState::new(plan.graph().unwrap());
    let origin = Origin { creator: "admin", executor: "here", trace_id: "t", epoch: 0 };
    let task = task::create(&mut transaction, &[(plan, &state)], &origin).await.unwrap()[0].id;
    if dispatched {
        let mut draft = Draft::new(&state);
        let event = Event::Dispatched { node: NodeIndex(0), attempt: 1, direction: Direction::Execute };
        draft.apply(&mut state, event).unwrap();
        task::append(&mut transaction, &draft.finish((task, 0, 1), &state, 1)).await.unwrap();
    }
    transaction.commit().await.unwrap();
    task
}

pub(super) async fn start(directory: &Path, store: Store, pool: AgentPool, shutdown: CancellationToken) -> Engine {
    let vault = Arc::new(Vault::load_or_create(&directory.join("secret.key")).unwrap());
    let parts = EngineParts {
        running_tasks: 1000,
        tasks: Arc::new(SqlTaskStore {
            store,
            vault,
            packages_dir: directory.into(),
            retention: tokio::sync::watch::channel(RETENTION).1,
        }),
        local: Arc::new(NothingToDo),
        agents: Arc::new(pool),
        metrics: EngineMetrics::register(&prometheus::Registry::new()).unwrap(),
        shutdown,
        fatal: CancellationToken::new(),
    };
    Engine::start(parts).await.unwrap()
}

pub(super) async fn at_rest(store: &Store, task: TaskId) -> TaskStatus {
    let look = async {
        loop {
            let mut connection = store.readers().acquire().await.unwrap();
            let status = task::get(&mut connection, task).await.unwrap().unwrap().status;
            if status != TaskStatus::Running {
                return status;
            }
            drop(connection);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), look).await.expect("the task comes to rest")
}

/// A coordinator with a thread of its own, which can be stopped as a virtual machine is.
struct Pausable {
    pause: tokio::sync::mpsc::UnboundedSender<mpsc::Receiver<()>>,
    engine: Engine,
    thread: std::thread::JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Pausable {
    async fn start(directory: &Path, pool: AgentPool) -> Self {
        let directory = directory.to_owned();
        let (pause, mut pauses) = tokio::sync::mpsc::unbounded_channel::<mpsc::Receiver<()>>();
        let (started, engine) = tokio::sync::oneshot::channel();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let store = open(&directory).await;
                let engine = start(&directory, store.clone(), pool, stop.clone()).await;
                drop(started.send(engine.clone()));
                while let Some(Some(woken)) = stop.run_until_cancelled(pauses.recv()).await {
                    // Blocks the only thread of this runtime: nothing of this coordinator moves.
                    let _ = woken.recv();
                }
                engine.stopped().await;
                store.close().await;
            });
        });
        Self { pause, engine: engine.await.unwrap(), thread, shutdown }
    }

    /// Nothing moves until the answer is dropped.
    fn pause(&self) -> mpsc::Sender<()> {
        let (wake, woken) = mpsc::channel();
        self.pause.send(woken).unwrap();
        wake
    }
}

#[tokio::test]
async fn a_coordinator_that_was_taken_for_dead_writes_nothing_and_makes_no_agent_act() {
    let lab = Lab::new(Behaviour::HoldAt(Phase::Running)).await;
    let directory = lab.directory.path();
    let store = open(directory).await;
    let mut transaction = store.begin().await.unwrap();
    let address = lab.agent.address();
    host::insert(&mut transaction, address.ip(), address.port(), 1, &host::HostDetails::default()).await.unwrap();
    transaction.commit().await.unwrap();
    let steps = [install(), refresh(), install()].map(Step::Agent);
    let task = create(&store, &chain(steps.to_vec()), false).await;

    let first = Pausable::start(directory, AgentPool::new(&issue(directory, Role::Coordinator)).unwrap()).await;
    until_called(&lab).await;
    let wake = first.pause();

    let shutdown = CancellationToken::new();
    let pool = AgentPool::new(&issue(directory, Role::Coordinator)).unwrap();
    let second = start(directory, store.clone(), pool, shutdown.clone()).await;
    assert!(second.epoch() > first.engine.epoch());
    lab.carrier.behave(Behaviour::Succeed);
    lab.carrier.gate.add_permits(1);
    assert_eq!(at_rest(&store, task).await, TaskStatus::Successful);
    let events = journal(&store, task).await;

    // The first one learns the outcome that it waited for, and wants to go on.
    drop(wake);
    let refused = first.engine.command(task, Command::Cancel, "admin").await;
    assert!(matches!(refused, Err(CommandError::Undriven)), "{refused:?}");
    first.shutdown.cancel();
    tokio::task::spawn_blocking(move || first.thread.join()).await.unwrap().unwrap();

    assert_eq!(journal(&store, task).await, events);
    let owners: Vec<i64> = events.iter().map(|(_, epoch)| *epoch).collect();
    assert!(owners.is_sorted(), "{events:?}");
    assert_eq!(lab.carrier.calls().len(), 3, "each step once");
    shutdown.cancel();
    second.stopped().await;
}

async fn until_called(lab: &Lab) {
    let called = async {
        while lab.carrier.calls().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), called).await.expect("the first step is under way");
}

/// Kind and owner of each event.
async fn journal(store: &Store, task: TaskId) -> Vec<(String, i64)> {
    let query = sqlx::query("SELECT kind, epoch FROM task_events WHERE task_id = ? ORDER BY sequence").bind(task.0);
    let rows = query.fetch_all(store.readers()).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn a_thousand_unfinished_tasks_are_taken_up_and_finished() {
    let lab = Lab::new(Behaviour::Succeed).await;
    let directory = lab.directory.path();
    let store = open(directory).await;
    let plan = chain(vec![Step::from(Finish {}); 12]);
    let mut ids = Vec::new();
    for _ in 0..1000 {
        ids.push(create(&store, &plan, true).await);
    }
    let shutdown = CancellationToken::new();
    let begin = Instant::now();
    let pool = AgentPool::new(&issue(directory, Role::Coordinator)).unwrap();
    let engine = start(directory, store.clone(), pool, shutdown.clone()).await;
    println!("ready after {:?}", begin.elapsed());
    for task in ids {
        assert_eq!(at_rest(&store, task).await, TaskStatus::Successful);
    }
    println!("all finished after {:?}", begin.elapsed());
    let twice = sqlx::query("SELECT COUNT(*) FROM task_events WHERE kind = 'dispatched'");
    let dispatched: i64 = twice.fetch_one(store.readers()).await.unwrap().get(0);
    assert_eq!(dispatched, 12_000, "each step once");
    shutdown.cancel();
    engine.stopped().await;
}

#[tokio::test]
async fn a_task_of_a_newer_program_waits_for_it_and_costs_no_other() {
    let lab = Lab::new(Behaviour::Succeed).await;
    let directory = lab.directory.path();
    let store = open(directory).await;
    let plan = chain(vec![Step::from(Finish {})]);
    let (strange, plain) = (create(&store, &plan, false).await, create(&store, &plan, true).await);
    let swap = |from: &'static str, to: &'static str| {
        let store = store.clone();
        async move {
            let mut transaction = store.begin().await.unwrap();
            let query = sqlx::query("UPDATE tasks SET plan = replace(plan, ?, ?) WHERE id = ?");
            query.bind(from).bind(to).bind(strange.0).execute(&mut *transaction).await.unwrap();
            transaction.commit().await.unwrap();
        }
    };
    swap("\"finish\"", "\"levitate\"").await;
    let mut problems = Vec::new();
    for knows_the_step in [false, true] {
        if knows_the_step {
            swap("\"levitate\"", "\"finish\"").await;
        }
        let shutdown = CancellationToken::new();
        let pool = AgentPool::new(&issue(directory, Role::Coordinator)).unwrap();
        let engine = start(directory, store.clone(), pool, shutdown.clone()).await;
        assert_eq!(at_rest(&store, plain).await, TaskStatus::Successful);
        let status = at_rest(&store, strange).await;
        assert_eq!(status, if knows_the_step { TaskStatus::Successful } else { TaskStatus::Failed });
        if !knows_the_step {
            let refused = engine.command(strange, Command::Retry, "admin").await;
            assert!(matches!(refused, Err(CommandError::Load(_))), "{refused:?}");
        }
        shutdown.cancel();
        engine.stopped().await;
        let mut connection = store.readers().acquire().await.unwrap();
        problems.push(task::get(&mut connection, strange).await.unwrap().unwrap().problem);
    }
    assert!(problems[0].as_ref().is_some_and(|problem| problem.contains("levitate")), "{problems:?}");
    assert_eq!(problems[1], None);
}
