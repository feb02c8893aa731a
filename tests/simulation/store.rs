//! The coordinator's store in memory: it belongs to the world, so it outlives every coordinator, and it fails, waits or
//! loses an answer when the world says so.

use super::{
    traps::{Action, SLOW, Side},
    world::{COORDINATOR, Trouble, World},
};
use crate::{
    coordinator::{
        agents::AgentAddress,
        engine::{LogText, NamedSecret, PreparationError, TaskStore, Unwritten, Write, Written},
        store::{
            StoreError,
            task::{Append, AppendError, LoadError, LoadedTask, LogPosition, TaskId, TaskRecord},
        },
    },
    graph::{Direction, Event, NodeIndex, Operation, SubtaskStatus, TaskState, TaskStatus},
    operations::TaskPlan,
    rpc::v1::OperationKey,
    steps::values::PackageRef,
};
use futures_util::future::BoxFuture;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

/// An event as it was written.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) event: Event,
    pub(super) epoch: i64,
    at: i64,
}

/// A task as the rows show it.
type Shown = (TaskStatus, Operation, Vec<(SubtaskStatus, Operation, u32)>);

#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) plan: TaskPlan,
    epoch: i64,
    pub(super) events: Vec<Entry>,
    pub(super) problem: Option<String>,
    pub(super) acknowledged: bool,
    shown: Shown,
}

impl Row {
    fn next_sequence(&self) -> i64 {
        self.events.len() as i64 + 1
    }

    pub(super) fn status(&self) -> TaskStatus {
        self.shown.0
    }

    /// What the events give.
    pub(super) fn state(&self) -> TaskState {
        let mut state = TaskState::new(self.plan.graph().unwrap());
        for entry in &self.events {
            state.apply(&entry.event).unwrap();
        }
        state
    }

    /// What was handed out last and is not over.
    pub(super) fn in_flight(&self) -> Option<(NodeIndex, Direction)> {
        self.state().subtasks().find_map(|(node, subtask)| Some((node, subtask.flight?)))
    }

    pub(super) fn has_ended(&self, node: NodeIndex, direction: Direction) -> bool {
        let mut ended = self.events.iter().filter_map(|entry| entry.event.ended());
        ended.any(|ended| (ended.node, ended.direction) == (node, direction))
    }

    pub(super) fn has_outcome(&self, key: &OperationKey) -> bool {
        let mut ended = self.events.iter().filter_map(|entry| entry.event.ended());
        ended.any(|ended| {
            let node = self.plan.node(ended.node).unwrap();
            ended.attempt == key.attempt && node.operation_id(ended.direction).to_string() == key.operation_id
        })
    }
}

fn shown(state: &TaskState) -> Shown {
    let subtasks = state.subtasks().map(|(_, subtask)| (subtask.status, subtask.operation, subtask.attempt));
    (state.status(), state.operation(), subtasks.collect())
}

#[derive(Default)]
pub(super) struct Tables {
    epoch: i64,
    pub(super) rows: BTreeMap<TaskId, Row>,
    logs: BTreeMap<(TaskId, NodeIndex, u32), LogPosition>,
    agents: BTreeMap<i64, AgentAddress>,
}

impl Tables {
    pub(super) fn add_agent(&mut self, host_id: i64, address: AgentAddress) {
        self.agents.insert(host_id, address);
    }

    /// What the API does with a request.
    pub(super) fn create(&mut self, plan: TaskPlan) -> TaskId {
        let id = TaskId(self.rows.len() as i64 + 1);
        let shown = shown(&TaskState::new(plan.graph().unwrap()));
        let row = Row { plan, epoch: self.epoch, events: Vec::new(), problem: None, acknowledged: false, shown };
        self.rows.insert(id, row);
        id
    }

    fn apply(&mut self, world: &World, write: &Write) -> Written {
        match write {
            Write::Claim { task, epoch } => {
                let row = self.row(*task, |owner| owner <= *epoch)?;
                row.epoch = *epoch;
            }
            Write::Append(append) => self.append(world, append)?,
            Write::Log(LogText { task, node, attempt, position, text }) => {
                self.logs.insert((*task, *node, *attempt), position.after(text));
            }
            Write::Problem { task, epoch, problem, status } => {
                let row = self.row(*task, |owner| owner == *epoch)?;
                row.problem.clone_from(problem);
                row.shown.0 = *status;
            }
            // Steps of the coordinator are simulated without rows.
            Write::Rows { task, epoch, .. } => drop(self.row(*task, |owner| owner == *epoch)?),
            Write::Acknowledged { task, next_sequence } => {
                if let Some(row) = self.rows.get_mut(task).filter(|row| row.next_sequence() == *next_sequence) {
                    row.acknowledged = true;
                }
            }
        }
        Ok(())
    }

    /// The task, if the epoch that owns it lets the asking one write.
    fn row(&mut self, task: TaskId, lets: impl Fn(i64) -> bool) -> Result<&mut Row, AppendError> {
        self.rows.get_mut(&task).filter(|row| lets(row.epoch)).ok_or(AppendError::Fenced(task))
    }

    fn append(&mut self, world: &World, append: &Append) -> Written {
        let row = self.row(append.task, |owner| owner == append.epoch)?;
        if row.next_sequence() != append.sequence {
            let first = usize::try_from(append.sequence - 1).unwrap();
            let written = row.events.iter().skip(first).take(append.events.len());
            let is_written = written.clone().count() == append.events.len()
                && written
                    .zip(&append.events)
                    .all(|(entry, event)| entry.event == *event && entry.epoch == append.epoch);
            return if is_written { Ok(()) } else { Err(AppendError::Fenced(append.task)) };
        }
        for event in &append.events {
            let run = event.run().map(|(node, attempt)| format!(" {node}/{attempt}")).unwrap_or_default();
            world.note(COORDINATOR, format!("task {}: {}{run}", append.task, event.kind()));
            row.events.push(Entry { event: event.clone(), epoch: append.epoch, at: append.at });
        }
        row.acknowledged = false;
        (row.shown.0, row.shown.1) = (append.status, append.operation);
        for change in &append.subtasks {
            row.shown.2[change.node.0 as usize] = (change.status, change.operation, change.attempt);
        }
        let folded = shown(&row.state());
        if row.shown != folded {
            world.violation(format!("task {}: the rows say {:?}, the events {folded:?}", append.task, row.shown));
        }
        Ok(())
    }
}

/// The store as one coordinator sees it.
pub(super) struct MemoryStore {
    pub(super) world: Arc<World>,
    /// The host of the coordinator.
    pub(super) host: String,
}

const SLOWEST_COMMIT: Duration = Duration::from_millis(20);

/// How often a coordinator that is cut off looks whether it still is.
const LOOK: Duration = Duration::from_millis(100);

fn disk_full() -> StoreError {
    StoreError::DiskFull(sqlx::Error::WorkerCrashed)
}

fn lost() -> StoreError {
    StoreError::Sql(sqlx::Error::WorkerCrashed)
}

impl TaskStore for MemoryStore {
    fn next_epoch(&self) -> BoxFuture<'_, Result<i64, StoreError>> {
        Box::pin(async {
            let mut tables = self.world.tables();
            tables.epoch += 1;
            Ok(tables.epoch)
        })
    }

    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<TaskId>, StoreError>> {
        Box::pin(async {
            let tables = self.world.tables();
            let open = |row: &&Row| row.status() == TaskStatus::Running || row.problem.is_some();
            Ok(tables.rows.iter().filter(|(_, row)| open(row)).map(|(id, _)| *id).collect())
        })
    }

    fn running(&self, epoch: i64) -> BoxFuture<'_, Result<Vec<TaskId>, StoreError>> {
        Box::pin(async move {
            let tables = self.world.tables();
            let runs = |row: &&Row| row.status() == TaskStatus::Running && row.epoch <= epoch;
            Ok(tables.rows.iter().filter(|(_, row)| runs(row)).map(|(id, _)| *id).collect())
        })
    }

    fn unacknowledged(&self) -> BoxFuture<'_, Result<Vec<TaskId>, StoreError>> {
        Box::pin(async {
            let tables = self.world.tables();
            let untold = |row: &&Row| row.status() != TaskStatus::Running && row.problem.is_none() && !row.acknowledged;
            Ok(tables.rows.iter().filter(|(_, row)| untold(row)).map(|(id, _)| *id).collect())
        })
    }

    fn load(&self, id: TaskId) -> BoxFuture<'_, Result<LoadedTask, LoadError>> {
        Box::pin(async move {
            let row = self.world.tables().rows.get(&id).cloned().ok_or(LoadError::Absent(id))?;
            let record = TaskRecord {
                id,
                status: row.shown.0,
                operation: row.shown.1,
                creator: "operator".into(),
                executor: self.host.clone(),
                trace_id: String::new(),
                created_at: 0,
                finished_at: None,
                problem: row.problem,
                acknowledged: row.acknowledged,
                subtasks: Vec::new(),
                plan: row.plan,
            };
            let mut loaded = LoadedTask {
                state: TaskState::new(record.plan.graph()?),
                record,
                next_sequence: 1,
                dispatched_at: Vec::new(),
                ended: Vec::new(),
            };
            for (sequence, entry) in (1..).zip(&row.events) {
                loaded.replay(sequence, &entry.event, entry.at)?;
            }
            Ok(loaded)
        })
    }

    fn commit<'a>(&'a self, group: &'a [Write]) -> BoxFuture<'a, Result<Vec<Written>, Unwritten>> {
        Box::pin(async move {
            tokio::time::sleep(self.world.delay(SLOWEST_COMMIT)).await;
            while self.world.is_cut_off(&self.host) {
                tokio::time::sleep(LOOK).await;
            }
            let write = || {
                let mut tables = self.world.tables();
                group.iter().map(|write| tables.apply(&self.world, write)).collect()
            };
            let trouble = match self.world.spring_in_store(group, Side::Before) {
                Some(action) => Some(action.before()),
                None => self.world.spring_in_store(group, Side::After).map(Action::after),
            };
            match trouble.or_else(|| self.world.trouble(&self.host)) {
                None => Ok(write()),
                Some(Trouble::Slow { written: false }) => {
                    tokio::time::sleep(SLOW).await;
                    Ok(write())
                }
                Some(Trouble::Slow { written: true }) => {
                    let results = write();
                    tokio::time::sleep(SLOW).await;
                    Ok(results)
                }
                Some(Trouble::Full) => Err(Unwritten::Undone(disk_full())),
                Some(Trouble::AnswerLost { written }) => {
                    if written {
                        let _: Vec<Written> = write();
                    }
                    Err(Unwritten::InDoubt(lost()))
                }
                Some(Trouble::Crash { written }) => {
                    if written {
                        let _: Vec<Written> = write();
                    }
                    self.world.crash_here(&self.host).await
                }
            }
        })
    }

    fn log_position(
        &self,
        task: TaskId,
        node: NodeIndex,
        attempt: u32,
    ) -> BoxFuture<'_, Result<LogPosition, StoreError>> {
        Box::pin(async move { Ok(self.world.tables().logs.get(&(task, node, attempt)).copied().unwrap_or_default()) })
    }

    fn agent_address(&self, host_id: i64) -> BoxFuture<'_, Result<Option<AgentAddress>, StoreError>> {
        Box::pin(async move { Ok(self.world.tables().agents.get(&host_id).copied()) })
    }

    fn secrets<'a>(
        &'a self,
        _plan: &'a TaskPlan,
        names: &'static [&'static str],
    ) -> BoxFuture<'a, Result<Vec<NamedSecret>, PreparationError>> {
        Box::pin(async { Ok(names.iter().map(|name| (*name, "secret".to_owned().into())).collect()) })
    }

    /// Simulated hosts have their packages.
    fn package_path<'a>(&'a self, _package: &'a PackageRef) -> BoxFuture<'a, Result<Option<PathBuf>, StoreError>> {
        Box::pin(async { Ok(None) })
    }

    fn expire(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
}
