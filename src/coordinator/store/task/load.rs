//! A task as its journal gives it.

use super::{TaskId, TaskRecord, read_task, subtasks_query};
use crate::{
    coordinator::store::{
        StoreError, by_ids_query,
        columns::{Cause, decode},
        pieces, push_in,
    },
    graph::{Dispatch, Event, IllegalTransition, NodeIndex, TaskState},
};
use sqlx::{Any, AnyConnection, QueryBuilder, Row as _, any::AnyRow};
use std::collections::HashMap;

/// A task with the state that its events give.
pub struct LoadedTask {
    pub record: TaskRecord,
    pub state: TaskState,
    pub next_sequence: i64,
    /// When each flight was handed out, to keep its deadline across a restart.
    pub dispatched_at: Vec<(NodeIndex, i64)>,
    /// Everything that was handed out and has its outcome.
    pub ended: Vec<Dispatch>,
}

/// Why a task cannot be taken up. It costs this task and no other.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("task {0} does not exist")]
    Absent(TaskId),
    #[error("task {0} belongs to a newer coordinator")]
    Superseded(TaskId),
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    #[error("the rows of the task are damaged, or were written by a newer coordinator")]
    Record(#[source] Cause),
    #[error("the graph of the task is damaged")]
    Graph(#[from] crate::graph::GraphError),
    #[error("event {sequence} of the task is damaged, or was written by a newer coordinator")]
    Event { sequence: i64, source: Cause },
    #[error("event {sequence} of the task does not follow from those before it")]
    Illegal { sequence: i64, source: IllegalTransition },
}

impl LoadError {
    /// The task itself is at fault, so asking again does not help; None if it is not.
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Record(_) | Self::Graph(_) | Self::Event { .. } | Self::Illegal { .. } => {
                Some(crate::telemetry::chain(self))
            }
            Self::Absent(_) | Self::Superseded(_) | Self::Store(_) => None,
        }
    }
}

/// The rows of a task.
pub struct TaskRows {
    task: AnyRow,
    /// In the order of the plan's nodes.
    subtasks: Vec<AnyRow>,
    /// In the order in which they happened.
    events: Vec<AnyRow>,
}

/// Reads the rows of tasks, of those that exist.
pub async fn rows(connection: &mut AnyConnection, ids: &[TaskId]) -> Result<HashMap<TaskId, TaskRows>, StoreError> {
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    let mut found = HashMap::new();
    for piece in pieces(&ids) {
        for task in by_ids_query("tasks", piece).build().fetch_all(&mut *connection).await? {
            found.insert(TaskId(task.try_get("id")?), TaskRows { task, subtasks: Vec::new(), events: Vec::new() });
        }
        for row in subtasks_query(piece).build().fetch_all(&mut *connection).await? {
            if let Some(rows) = found.get_mut(&TaskId(row.try_get("task_id")?)) {
                rows.subtasks.push(row);
            }
        }
        for row in events_query(piece).build().fetch_all(&mut *connection).await? {
            if let Some(rows) = found.get_mut(&TaskId(row.try_get("task_id")?)) {
                rows.events.push(row);
            }
        }
    }
    Ok(found)
}

pub(in crate::coordinator::store) fn events_query(tasks: &[i64]) -> QueryBuilder<Any> {
    let mut query =
        QueryBuilder::<Any>::new("SELECT task_id, sequence, payload, created_at FROM task_events WHERE task_id");
    push_in(&mut query, tasks.iter().copied());
    query.push(" ORDER BY task_id, sequence");
    query
}

impl TaskRows {
    /// Replays the journal of the task.
    pub fn replay(&self) -> Result<LoadedTask, LoadError> {
        let (record, damage) = read_task(&self.task, &self.subtasks)?;
        if let Some(damage) = damage {
            return Err(LoadError::Record(damage));
        }
        let mut loaded = LoadedTask {
            state: TaskState::new(record.plan.graph()?),
            record,
            next_sequence: 1,
            dispatched_at: Vec::new(),
            ended: Vec::new(),
        };
        for row in &self.events {
            let column = |name| row.try_get::<i64, _>(name).map_err(StoreError::from);
            let (sequence, created_at) = (column("sequence")?, column("created_at")?);
            let payload: String = row.try_get("payload").map_err(StoreError::from)?;
            let event: Event = decode(&payload).map_err(|source| LoadError::Event { sequence, source })?;
            loaded.replay(sequence, &event, created_at)?;
        }
        Ok(loaded)
    }
}

/// Reads a task and replays its journal.
pub async fn load(connection: &mut AnyConnection, id: TaskId) -> Result<LoadedTask, LoadError> {
    rows(connection, &[id]).await?.get(&id).ok_or(LoadError::Absent(id))?.replay()
}

impl LoadedTask {
    /// Takes the next event of the journal in.
    pub fn replay(&mut self, sequence: i64, event: &Event, created_at: i64) -> Result<(), LoadError> {
        self.state.apply(event).map_err(|source| LoadError::Illegal { sequence, source })?;
        if let Event::Dispatched { node, .. } = event {
            self.dispatched_at.retain(|(earlier, _)| earlier != node);
            self.dispatched_at.push((*node, created_at));
        }
        self.ended.extend(event.ended());
        self.next_sequence = sequence + 1;
        Ok(())
    }
}
