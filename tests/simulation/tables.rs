//! What the coordinator's store holds, in memory, by the rules of the real one: `differential` asks both the same.

use super::rows::{Entry, Row, conflict};
use crate::{
    clock::now_micros,
    coordinator::{
        agents::AgentAddress,
        engine::{LogText, Write, Written, claims_decide},
        store::{
            StoreError,
            locks::Holder,
            task::{Append, AppendError, LoadError, LoadedTask, LogPosition, TaskId, TaskRecord},
        },
    },
    graph::{Event, NodeIndex, TaskState, TaskStatus},
    operations::{ObjectLock, TaskPlan},
    steps::{CoordinatorStep, Step},
};
use std::collections::BTreeMap;

/// One part of the log of an attempt.
type PartKey = (TaskId, NodeIndex, u32, i64);

#[derive(Default, Clone)]
pub(super) struct Tables {
    epoch: i64,
    subtasks: i64,
    pub(super) rows: BTreeMap<TaskId, Row>,
    /// How far each part reaches in the agent's log, and its own bytes.
    logs: BTreeMap<PartKey, (i64, i64)>,
    locks: Vec<(TaskId, ObjectLock)>,
    agents: BTreeMap<i64, AgentAddress>,
    /// Epochs, by host.
    coordinators: BTreeMap<String, i64>,
    /// Tasks that were made with the key of a request.
    keys: BTreeMap<u16, TaskId>,
}

impl Tables {
    pub(super) fn add_agent(&mut self, host_id: i64, address: AgentAddress) {
        self.agents.insert(host_id, address);
    }

    pub(super) fn agent(&self, host_id: i64) -> Option<AgentAddress> {
        self.agents.get(&host_id).copied()
    }

    pub(super) fn next_epoch(&mut self, by_clock_alone: bool) -> i64 {
        let seconds = now_micros() / 1_000_000;
        self.epoch = if by_clock_alone { seconds } else { seconds.max(self.epoch + 1) };
        self.epoch
    }

    /// The coordinator on this host has this epoch.
    pub(super) fn starts(&mut self, host: &str, epoch: i64) {
        self.coordinators.insert(host.into(), epoch);
    }

    /// Whether the coordinator on this host may change rows for the task that has this step.
    pub(super) fn owns(&self, host: &str, step: &CoordinatorStep) -> bool {
        let has = |row: &&Row| row.record.plan.nodes.iter().any(|node| node.step == Step::Coordinator(step.clone()));
        let owner = self.rows.values().find(has).map(|row| row.epoch);
        owner == self.coordinators.get(host).copied()
    }

    /// Tasks that run without all that they have to reserve.
    pub(super) fn unreserved(&self) -> Vec<TaskId> {
        self.ids(|Row { record, .. }| {
            let is_held = |lock: &ObjectLock| self.locks.contains(&(record.id, *lock));
            record.status == TaskStatus::Running && !record.plan.locks.iter().all(is_held)
        })
    }

    /// Lets whoever asks for a task have it.
    pub(super) fn let_in(&mut self, group: &[Write]) {
        for write in group {
            if let Write::Claim { task, epoch } = write
                && let Some(row) = self.rows.get_mut(task)
            {
                row.epoch = *epoch;
            }
        }
    }

    /// What the API does with a request.
    pub(super) fn create(&mut self, plan: TaskPlan) -> Result<TaskId, Holder> {
        let id = TaskId(self.rows.len() as i64 + 1);
        self.take_locks(id, &plan.locks)?;
        let row = Row::new(id, plan, self.epoch, self.subtasks + 1);
        self.subtasks += row.record.subtasks.len() as i64;
        self.rows.insert(id, row);
        Ok(id)
    }

    /// The same with the key of the request: it makes its task once.
    pub(super) fn create_once(&mut self, key: u16, plan: TaskPlan) -> Result<TaskId, Holder> {
        if let Some(id) = self.keys.get(&key) {
            return Ok(*id);
        }
        let id = self.create(plan)?;
        self.keys.insert(key, id);
        Ok(id)
    }

    /// Who stands in the way of a task that is to run again.
    pub(super) fn obstacle(&self, task: TaskId) -> Option<Holder> {
        self.rows.get(&task).and_then(|row| self.conflict(task, &row.record.plan.locks))
    }

    fn conflict(&self, task: TaskId, locks: &[ObjectLock]) -> Option<Holder> {
        for lock in locks {
            let stands_in_the_way = |(holder, held): &&(TaskId, ObjectLock)| {
                *holder != task && (held.kind, held.id) == (lock.kind, lock.id) && (lock.exclusive || held.exclusive)
            };
            if let Some((holder, held)) = self.locks.iter().filter(stands_in_the_way).min_by_key(|(holder, _)| *holder)
            {
                let TaskRecord { plan, status, created_at, finished_at, .. } = &self.rows[holder].record;
                let (name, since) = (plan.name.clone(), finished_at.unwrap_or(*created_at));
                return Some(Holder { lock: *held, task: *holder, name, status: *status, since });
            }
        }
        None
    }

    fn take_locks(&mut self, task: TaskId, locks: &[ObjectLock]) -> Result<(), Holder> {
        if let Some(holder) = self.conflict(task, locks) {
            return Err(holder);
        }
        self.release_locks(task);
        self.locks.extend(locks.iter().map(|lock| (task, *lock)));
        Ok(())
    }

    /// Answers what the task held.
    pub(super) fn release_locks(&mut self, task: TaskId) -> Vec<ObjectLock> {
        let mut released: Vec<ObjectLock> =
            self.locks.extract_if(.., |(holder, _)| *holder == task).map(|(_, lock)| lock).collect();
        released.sort_by_key(|lock| (lock.kind.as_str(), lock.id));
        released
    }

    /// Takes the locks of a task that is to run again, in case they were released meanwhile.
    pub(super) fn retake_locks(&mut self, task: TaskId) -> Result<(), Holder> {
        match self.rows.get(&task).map(|row| &row.record) {
            Some(TaskRecord { status: TaskStatus::Running | TaskStatus::Failed, plan, .. }) => {
                let locks = plan.locks.clone();
                self.take_locks(task, &locks)
            }
            Some(TaskRecord { status: TaskStatus::Successful, .. }) | None => Ok(()),
        }
    }

    fn ids(&self, which: impl Fn(&Row) -> bool) -> Vec<TaskId> {
        self.rows.iter().filter(|(_, row)| which(row)).map(|(id, _)| *id).collect()
    }

    pub(super) fn unfinished(&self) -> Vec<TaskId> {
        self.ids(|Row { record, .. }| match record.status {
            TaskStatus::Running => true,
            TaskStatus::Failed => record.problem.is_some(),
            TaskStatus::Successful => false,
        })
    }

    pub(super) fn running(&self, epoch: i64) -> Vec<TaskId> {
        self.ids(|row| row.record.status == TaskStatus::Running && row.epoch <= epoch)
    }

    pub(super) fn unacknowledged(&self) -> Vec<TaskId> {
        self.ids(|Row { record, .. }| {
            record.status != TaskStatus::Running && record.problem.is_none() && !record.acknowledged
        })
    }

    pub(super) fn load(&self, id: TaskId) -> Result<LoadedTask, LoadError> {
        let row = self.rows.get(&id).ok_or(LoadError::Absent(id))?;
        let mut loaded = LoadedTask {
            state: TaskState::new(row.record.plan.graph()?),
            record: row.record.clone(),
            next_sequence: 1,
            dispatched_at: Vec::new(),
            ended: Vec::new(),
        };
        for (sequence, entry) in (1..).zip(&row.events) {
            loaded.replay(sequence, &entry.event, entry.at)?;
        }
        Ok(loaded)
    }

    pub(super) fn log_position(&self, task: TaskId, node: NodeIndex, attempt: u32) -> LogPosition {
        let parts = self.logs.range((task, node, attempt, i64::MIN)..=(task, node, attempt, i64::MAX));
        parts.fold(LogPosition::default(), |position, ((.., part), (agent_offset, bytes))| LogPosition {
            next_part: part + 1,
            agent_offset: position.agent_offset.max(*agent_offset),
            stored_bytes: position.stored_bytes + bytes,
        })
    }

    /// Writes all of it or, after an error, nothing.
    pub(super) fn commit(&mut self, group: &[Write]) -> Result<Vec<Written>, StoreError> {
        let takes = |write: &Write| matches!(write, Write::Append(append) if append.resumes);
        // A single write that takes no reservations looks before it changes anything.
        let before = (group.len() > 1 || group.iter().any(takes)).then(|| self.clone());
        let mut results: Vec<(usize, Written)> = Vec::with_capacity(group.len());
        // In the real one, too, what takes reservations comes after what releases some, unless claims decide.
        let is_late = |(_, write): &(usize, &Write)| !claims_decide(group) && takes(write);
        let (late, early): (Vec<_>, Vec<_>) = group.iter().enumerate().partition(is_late);
        for (index, write) in early.into_iter().chain(late) {
            match self.apply(write) {
                Err(AppendError::Store(error)) => {
                    if let Some(before) = before {
                        *self = before;
                    }
                    return Err(error);
                }
                written => results.push((index, written)),
            }
        }
        results.sort_by_key(|(index, _)| *index);
        Ok(results.into_iter().map(|(_, written)| written).collect())
    }

    fn apply(&mut self, write: &Write) -> Written {
        match write {
            Write::Claim { task, epoch } => self.row(*task, |owner| owner <= *epoch)?.epoch = *epoch,
            Write::Append(append) => self.append(append)?,
            Write::Log(text) => self.log(text)?,
            Write::Problem { task, epoch, problem, status } => {
                self.row(*task, |owner| owner == *epoch)?;
                if problem.is_none() {
                    self.retake_locks(*task).map_err(AppendError::Reserved)?;
                }
                let row = self.row(*task, |owner| owner == *epoch)?;
                (row.record.problem, row.record.status) = (problem.clone(), *status);
            }
            // Steps of the coordinator are simulated without rows.
            Write::Rows { task, epoch, .. } => drop(self.row(*task, |owner| owner == *epoch)?),
            Write::Acknowledged { task, next_sequence } => {
                if let Some(row) = self.rows.get_mut(task).filter(|row| row.next_sequence() == *next_sequence) {
                    row.record.acknowledged = true;
                }
            }
        }
        Ok(())
    }

    /// The task, if the epoch that owns it lets the asking one write.
    fn row(&mut self, task: TaskId, lets: impl Fn(i64) -> bool) -> Result<&mut Row, AppendError> {
        self.rows.get_mut(&task).filter(|row| lets(row.epoch)).ok_or(AppendError::Fenced(task))
    }

    fn append(&mut self, append: &Append) -> Written {
        let row = self.row(append.task, |_owner| true)?;
        if (row.epoch, row.next_sequence()) != (append.epoch, append.sequence) {
            return if row.has(append) { Ok(()) } else { Err(AppendError::Fenced(append.task)) };
        }
        if append.resumes {
            self.retake_locks(append.task).map_err(AppendError::Reserved)?;
        }
        let row = self.row(append.task, |_owner| true)?;
        let same = |event: &Event| {
            let (run, kind) = (event.run(), event.kind());
            run.is_some() && row.events.iter().any(|entry| (entry.event.run(), entry.event.kind()) == (run, kind))
        };
        if append.events.iter().any(same) {
            return Err(conflict().into());
        }
        let entry = |event: &Event| Entry { event: event.clone(), epoch: append.epoch, at: append.at };
        row.events.extend(append.events.iter().map(entry));
        row.project(append);
        if append.status == TaskStatus::Successful {
            self.release_locks(append.task);
        }
        Ok(())
    }

    fn log(&mut self, LogText { task, epoch, node, attempt, position, text }: &LogText) -> Written {
        self.row(*task, |owner| owner == *epoch)?;
        let after = position.after(text);
        if after == *position {
            return Ok(());
        }
        let key = (*task, *node, *attempt, position.next_part);
        if self.logs.contains_key(&key) {
            return Err(conflict().into());
        }
        self.logs.insert(key, (position.agent_offset, after.stored_bytes - position.stored_bytes));
        Ok(())
    }
}
