//! The store of the simulation is only as good as it is like the real one: both are asked the same, by coordinators that
//! own a task, by some that have lost it and by some that err, and both must answer the same and hold the same.
//!
//! They differ on purpose in what the simulation does without:
//!  1. hosts, passwords, packages and their rows, so a change of rows changes nothing here; whether it may is compared;
//!  2. the texts of logs: their positions are compared, up to the limit at which a log is cut;
//!  3. when a task was created, which is the time of day.
//!
//! A group has at most one write of each task beside its logs, and nobody takes up a task again in it: whoever has
//! written waits for the commit, and which of two neighbours comes first is not promised.

use super::{perils::Odds, store::MemoryStore, tasks, world::World};
use crate::{
    coordinator::{
        config::Retention,
        engine::{SqlTaskStore, TaskStore, Unwritten, Write, Written},
        secrets::Vault,
        store::{
            Store,
            locks::{self, Holder},
            task::{self, Append, AppendError, CreateError, LoadedTask, LogPosition, Origin, TaskId},
        },
    },
    graph::{NodeIndex, TaskState, TaskStatus},
    operations::{ObjectKind, ObjectLock, TaskPlan},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::runtime::Runtime;

const SEEDS: u64 = 16;
const MOVES: usize = 160;
const MOST_TASKS: usize = 5;
/// A task that nobody has made is asked for too.
const NO_TASK: TaskId = TaskId(99);
const EPOCHS: std::ops::Range<i64> = 1..4;
const LONGEST_LOG: i64 = 1 << 20;

fn written(result: &Written) -> String {
    match result {
        Ok(()) => "written".into(),
        Err(AppendError::Fenced(task)) => format!("fenced from {task}"),
        Err(AppendError::Reserved(holder)) => reserved(holder),
        Err(AppendError::Store(error)) => panic!("{error}"),
    }
}

fn reserved(Holder { lock, task, name, status, since: _ }: &Holder) -> String {
    format!("reserved: {lock:?} by {task} {name} {status}")
}

/// What comes of a group; one with a write that conflicts is none.
async fn commit(store: &dyn TaskStore, group: &[Write]) -> Result<Vec<String>, &'static str> {
    match store.commit(group).await {
        Ok(results) => Ok(results.iter().map(written).collect()),
        Err(Unwritten::Undone(error)) if error.is_conflict() => Err("conflict"),
        Err(error) => panic!("{error:?}"),
    }
}

async fn held(store: &dyn TaskStore, id: TaskId, nodes: usize) -> Vec<String> {
    let mut told = vec![match store.load(id).await {
        Ok(LoadedTask { mut record, state, next_sequence, dispatched_at, ended }) => {
            record.created_at = 0;
            format!("{record:?} {state:?} {next_sequence} {dispatched_at:?} {ended:?}")
        }
        Err(error) => format!("{error:?}"),
    }];
    for node in (0..u32::try_from(nodes).unwrap()).map(NodeIndex) {
        let LogPosition { next_part, agent_offset, stored_bytes } = store.log_position(id, node, 1).await.unwrap();
        told.push(format!("{next_part} {agent_offset} {}", stored_bytes.min(LONGEST_LOG)));
    }
    told
}

async fn lists(store: &dyn TaskStore) -> Vec<Vec<TaskId>> {
    let mut lists = vec![store.unfinished().await.unwrap(), store.unacknowledged().await.unwrap()];
    for epoch in EPOCHS {
        lists.push(store.running(epoch).await.unwrap());
    }
    lists
}

/// A task as one coordinator believes it to be.
pub(super) struct View {
    pub(super) state: TaskState,
    pub(super) next_sequence: i64,
    pub(super) last: Option<Append>,
}

pub(super) struct Both {
    pub(super) random: fastrand::Rng,
    pub(super) sql: SqlTaskStore,
    memory: MemoryStore,
    pub(super) outside: Runtime,
    /// The simulated store waits.
    paused: Runtime,
    plans: BTreeMap<TaskId, TaskPlan>,
    pub(super) views: BTreeMap<(TaskId, i64), View>,
    pub(super) now: i64,
    /// What was answered, without the names of tasks.
    met: BTreeSet<String>,
}

fn runtime(paused: bool) -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(paused).build().unwrap()
}

impl Both {
    fn new(seed: u64, directory: &std::path::Path) -> Self {
        let outside = runtime(false);
        let retention = Retention { logs: Duration::MAX, log_limit_bytes: u64::MAX, tasks: Duration::MAX };
        let sql = SqlTaskStore {
            store: outside.block_on(Store::open(&directory.join(format!("{seed}.db")))).unwrap(),
            vault: Arc::new(Vault::load_or_create(&directory.join("key")).unwrap()),
            packages_dir: directory.into(),
            retention: tokio::sync::watch::channel(retention).1,
        };
        let memory = MemoryStore { world: World::new(seed, Odds::default()), host: "coordinator".into() };
        Self {
            random: fastrand::Rng::with_seed(seed),
            sql,
            memory,
            outside,
            paused: runtime(true),
            plans: BTreeMap::new(),
            views: BTreeMap::new(),
            now: 0,
            met: BTreeSet::new(),
        }
    }

    fn act(&mut self) {
        match self.random.u8(0..20) {
            0 | 1 if self.plans.len() < MOST_TASKS => self.create(),
            2 => self.release(),
            3 => {
                let (task, epoch, status) = (self.task(), self.epoch(), self.status());
                self.write(vec![Write::Problem { task, epoch, problem: None, status }]);
            }
            4..8 => {
                let (task, epoch) = (self.task(), self.epoch());
                self.read_anew(task, epoch);
            }
            _ => {
                let mut group: BTreeMap<TaskId, Write> = BTreeMap::new();
                let mut logs = Vec::new();
                for _ in 0..self.random.usize(1..9) {
                    match self.wish() {
                        Some(log @ Write::Log(_)) => logs.push(log),
                        Some(write) => drop(group.insert(write.task(), write)),
                        None => {}
                    }
                }
                self.write(group.into_values().chain(logs).collect());
            }
        }
    }

    pub(super) fn task(&mut self) -> TaskId {
        let ids: Vec<TaskId> = self.plans.keys().copied().collect();
        if self.random.u8(0..20) == 0 { NO_TASK } else { self.random.choice(ids).unwrap_or(NO_TASK) }
    }

    pub(super) fn epoch(&mut self) -> i64 {
        // The newest owns most of the tasks in the end.
        self.random.i64(EPOCHS).max(self.random.i64(EPOCHS))
    }

    fn status(&mut self) -> TaskStatus {
        self.random.choice([TaskStatus::Running, TaskStatus::Failed]).unwrap()
    }

    fn create(&mut self) {
        let mut plan = tasks::nonsense(&mut self.random, 0, 2);
        let kinds = [ObjectKind::Host, ObjectKind::Obproxy];
        let all = kinds.into_iter().flat_map(|kind| [1, 2].map(|id| (kind, id)));
        let lock = |(kind, id)| ObjectLock { kind, id, exclusive: self.random.bool() };
        plan.locks = all.map(lock).collect();
        plan.locks.retain(|_| self.random.u8(0..3) == 0);
        let real = self.outside.block_on(async {
            let state = TaskState::new(plan.graph().unwrap());
            let origin = Origin { creator: "operator", executor: "coordinator", trace_id: "", epoch: 0 };
            let mut transaction = self.sql.store.begin().await.unwrap();
            match task::create(&mut transaction, &[(&plan, &state)], &origin).await {
                Ok(made) => transaction.commit().await.map(|()| Ok(made[0].id)).unwrap(),
                Err(CreateError::Reserved(holder)) => Err(reserved(&holder)),
                Err(CreateError::Store(error)) => panic!("{error}"),
            }
        });
        let simulated = self.memory.world.tables().create(plan.clone()).map_err(|holder| reserved(&holder));
        assert_eq!(simulated, real);
        if let Ok(id) = real {
            self.plans.insert(id, plan);
        }
    }

    fn release(&mut self) {
        let task = self.task();
        let real = self.outside.block_on(async {
            let mut transaction = self.sql.store.begin().await.unwrap();
            let released = locks::release(&mut transaction, task).await.unwrap();
            transaction.commit().await.unwrap();
            released
        });
        assert_eq!(self.memory.world.tables().release_locks(task), real);
    }

    fn read_anew(&mut self, task: TaskId, epoch: i64) {
        if let Ok(LoadedTask { state, next_sequence, .. }) = self.outside.block_on(self.sql.load(task)) {
            self.views.insert((task, epoch), View { state, next_sequence, last: None });
        }
    }

    /// Writes as the engine's journal does: what was undone as a group is written one by one.
    fn write(&mut self, group: Vec<Write>) {
        let real = self.outside.block_on(commit(&self.sql, &group));
        let simulated = self.paused.block_on(commit(&self.memory, &group));
        assert_eq!(simulated, real, "{group:#?}");
        match real {
            Ok(results) => {
                let is_taken =
                    |(write, result): &(&Write, &String)| matches!(write, Write::Append(_)) && *result == "written";
                if group.iter().zip(&results).filter(is_taken).count() > 1 {
                    self.met.insert("together".into());
                }
                for (write, result) in group.iter().zip(results) {
                    self.met.extend(result.split_whitespace().next().map(Into::into));
                    if let Write::Append(append) = write
                        && result == "written"
                    {
                        self.follow(append);
                    }
                }
            }
            Err(error) => {
                self.met.insert(error.into());
                if group.len() > 1 {
                    group.into_iter().for_each(|write| self.write(vec![write]));
                }
            }
        }
    }

    /// The coordinator whose events were taken believes them.
    fn follow(&mut self, append: &Append) {
        let Some(view) = self.views.get_mut(&(append.task, append.epoch)) else { return };
        if view.next_sequence == append.sequence {
            for event in &append.events {
                view.state.apply(event).unwrap();
            }
            view.next_sequence = append.next_sequence();
        }
        view.last = Some(append.clone());
    }

    fn compare(&self) {
        assert_eq!(self.paused.block_on(lists(&self.memory)), self.outside.block_on(lists(&self.sql)));
        for (id, plan) in self.plans.iter().map(|(id, plan)| (*id, plan.nodes.len())).chain([(NO_TASK, 1)]) {
            let real = self.outside.block_on(held(&self.sql, id, plan));
            assert_eq!(self.paused.block_on(held(&self.memory, id, plan)), real);
        }
    }
}

#[test]
fn the_simulated_store_answers_and_holds_what_the_real_one_does() {
    let directory = super::agents::state_directory();
    let mut met = BTreeSet::new();
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let mut both = Both::new(seed, directory.path());
        for number in 0..MOVES {
            both.act();
            if number % 8 == 0 {
                both.compare();
            }
        }
        both.compare();
        for epochs in [both.outside.block_on(both.sql.next_epoch()), both.paused.block_on(both.memory.next_epoch())] {
            assert!(epochs.unwrap() >= crate::clock::now_micros() / 1_000_000 - 5);
        }
        met.append(&mut both.met);
        both.outside.block_on(both.sql.store.close());
    }
    assert_eq!(
        met,
        ["conflict", "fenced", "reserved:", "together", "written"].map(Into::into).into(),
        "not all was shown"
    );
}
