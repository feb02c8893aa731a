//! Rows of the store in memory.

use crate::{
    clock::now_micros,
    coordinator::store::{
        StoreError,
        task::{Append, SubtaskRecord, TaskId, TaskRecord},
    },
    graph::{Direction, Event, NodeIndex, TaskState, TaskStatus},
    operations::TaskPlan,
    rpc::v1::OperationKey,
};
use sqlx::error::{DatabaseError, ErrorKind};
use std::{error::Error, fmt};

/// An event as it was written.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) event: Event,
    pub(super) epoch: i64,
    pub(super) at: i64,
}

#[derive(Debug, Clone)]
pub(super) struct Row {
    /// As the API would show it.
    pub(super) record: TaskRecord,
    pub(super) epoch: i64,
    pub(super) events: Vec<Entry>,
}

impl Row {
    /// A task that nobody has begun; its subtasks are numbered from `first` on.
    pub(super) fn new(id: TaskId, plan: TaskPlan, epoch: i64, first: i64) -> Self {
        let state = TaskState::new(plan.graph().unwrap());
        let subtasks = (first..).zip(state.subtasks()).map(|(id, (node, subtask))| SubtaskRecord {
            id,
            node,
            status: subtask.status,
            operation: subtask.operation,
            run_time: subtask.attempt,
            started_at: None,
            finished_at: None,
            failure: None,
        });
        let record = TaskRecord {
            id,
            status: state.status(),
            operation: state.operation(),
            creator: "operator".into(),
            executor: "coordinator".into(),
            trace_id: String::new(),
            created_at: now_micros(),
            finished_at: None,
            problem: None,
            acknowledged: false,
            subtasks: subtasks.collect(),
            plan,
        };
        Self { record, epoch, events: Vec::new() }
    }

    pub(super) fn next_sequence(&self) -> i64 {
        self.events.len() as i64 + 1
    }

    /// There is nothing left to do about it.
    pub(super) fn is_over(&self) -> bool {
        self.record.status == TaskStatus::Successful && self.record.acknowledged
    }

    /// What the events give.
    pub(super) fn state(&self) -> TaskState {
        let mut state = TaskState::new(self.record.plan.graph().unwrap());
        for entry in &self.events {
            state.apply(&entry.event).unwrap();
        }
        state
    }

    /// Whether the record and the events say the same.
    pub(super) fn is_sound(&self) -> bool {
        let state = self.state();
        let subtasks = state.subtasks().map(|(_, subtask)| (subtask.status, subtask.operation, subtask.attempt));
        let rows = self.record.subtasks.iter().map(|row| (row.status, row.operation, row.run_time));
        (self.record.status, self.record.operation) == (state.status(), state.operation()) && subtasks.eq(rows)
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
            let node = self.record.plan.node(ended.node).unwrap();
            ended.attempt == key.attempt && node.operation_id(ended.direction).to_string() == key.operation_id
        })
    }

    /// Whether these events were written at this place under this epoch.
    pub(super) fn has(&self, append: &Append) -> bool {
        let place = append.sequence..append.next_sequence();
        let written =
            (1..).zip(&self.events).filter(|(sequence, entry)| place.contains(sequence) && entry.epoch == append.epoch);
        written.map(|(_, entry)| &entry.event).eq(&append.events)
    }

    /// Shows what the events changed.
    pub(super) fn project(&mut self, append: &Append) {
        let record = &mut self.record;
        (record.status, record.operation, record.acknowledged) = (append.status, append.operation, false);
        record.finished_at = (append.status != TaskStatus::Running).then_some(append.at);
        for change in &append.subtasks {
            let subtask = &mut record.subtasks[change.node.0 as usize];
            (subtask.status, subtask.operation, subtask.run_time) = (change.status, change.operation, change.attempt);
            subtask.failure.clone_from(&change.failure);
            if change.clock.started {
                subtask.started_at = Some(append.at);
            }
            if change.clock.started || change.clock.ended {
                subtask.finished_at = change.clock.ended.then_some(append.at);
            }
        }
    }
}

/// A row with the same key is there.
#[derive(Debug)]
struct Duplicate;

impl fmt::Display for Duplicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UNIQUE constraint failed")
    }
}

impl Error for Duplicate {}

impl DatabaseError for Duplicate {
    fn message(&self) -> &str {
        "UNIQUE constraint failed"
    }

    fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        ErrorKind::UniqueViolation
    }
}

pub(super) fn conflict() -> StoreError {
    StoreError::Sql(sqlx::Error::Database(Box::new(Duplicate)))
}
