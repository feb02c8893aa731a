use super::{AppendError, TaskId, encode, get, places};
use crate::{
    coordinator::store::{StoreError, locks},
    graph::{
        Event, Failure, IllegalTransition, NodeIndex, Operation, SubtaskState, SubtaskStatus, TaskState, TaskStatus,
    },
};
use sqlx::{Any, AnyConnection, QueryBuilder, Row as _, query_builder::Separated};
use std::collections::HashMap;

/// Events of one task that become true together, with the rows that follow from them.
#[derive(Debug, Clone)]
pub struct Append {
    pub task: TaskId,
    pub epoch: i64,
    /// Sequence number of the first event.
    pub sequence: i64,
    pub events: Vec<Event>,
    pub at: i64,
    pub status: TaskStatus,
    pub operation: Operation,
    pub subtasks: Vec<SubtaskChange>,
    /// The task was at rest, and runs again by these events.
    pub resumes: bool,
}

/// A subtask that the events moved.
#[derive(Debug, Clone)]
pub struct SubtaskChange {
    pub node: NodeIndex,
    pub status: SubtaskStatus,
    pub operation: Operation,
    pub attempt: u32,
    pub failure: Option<Failure>,
    pub clock: Clock,
}

/// What the events say of the times of a subtask: a start begins a run that has no end, an end ends it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Clock {
    pub started: bool,
    pub ended: bool,
}

/// Events on their way into an [`Append`]: each is applied at once, so that the next can be chosen by the new state.
pub struct Draft {
    rested: bool,
    before: Vec<Shown>,
    events: Vec<Event>,
}

/// What a row shows of a subtask and most events do not touch.
type Shown = (SubtaskStatus, Operation, u32);

fn shown(subtask: &SubtaskState) -> Shown {
    (subtask.status, subtask.operation, subtask.attempt)
}

impl Draft {
    pub fn new(state: &TaskState) -> Self {
        let rested = state.status() != TaskStatus::Running;
        Self { rested, before: state.subtasks().map(|(_, subtask)| shown(subtask)).collect(), events: Vec::new() }
    }

    pub fn apply(&mut self, state: &mut TaskState, event: Event) -> Result<(), IllegalTransition> {
        state.apply(&event)?;
        self.events.push(event);
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Notes what the events moved. One event can move many subtasks: a join becomes READY, a rollback turns the whole
    /// graph.
    pub fn finish(self, (task, epoch, sequence): (TaskId, i64, i64), state: &TaskState, at: i64) -> Append {
        let mut clocks = HashMap::<NodeIndex, Clock>::new();
        for event in &self.events {
            if let Some((node, _)) = event.run() {
                let clock = clocks.entry(node).or_default();
                let started = matches!(event, Event::Dispatched { .. });
                *clock = Clock { started: clock.started || started, ended: !started };
            }
        }
        let moved = state.subtasks().zip(&self.before).filter_map(|((node, subtask), before)| {
            let clock = clocks.get(&node).copied();
            (clock.is_some() || shown(subtask) != *before).then(|| SubtaskChange {
                node,
                status: subtask.status,
                operation: subtask.operation,
                attempt: subtask.attempt,
                failure: subtask.failure.clone(),
                clock: clock.unwrap_or_default(),
            })
        });
        let subtasks = moved.collect();
        let (status, operation) = (state.status(), state.operation());
        let resumes = self.rested && status == TaskStatus::Running;
        Append { task, epoch, sequence, at, status, operation, subtasks, events: self.events, resumes }
    }
}

impl Append {
    /// When the task came to rest, if it did.
    pub(super) fn finished_at(&self) -> Option<i64> {
        (self.status != TaskStatus::Running).then_some(self.at)
    }

    /// Sequence number of the first event that comes after these.
    pub fn next_sequence(&self) -> i64 {
        self.sequence.saturating_add(i64::try_from(self.events.len()).unwrap_or(i64::MAX))
    }
}

/// Writes events and the rows that follow from them, on condition that the epoch is still the task's own, and that nobody
/// has what a task that runs again had reserved.
pub async fn append(connection: &mut AnyConnection, append: &Append) -> Result<(), AppendError> {
    let task = append.task;
    let takes = append.resumes && is_next(connection, append).await?;
    if takes {
        take_again(connection, task).await?;
    }
    let claimed = sqlx::query(
        "UPDATE tasks SET status = ?, operation = ?, finished_at = ?, next_sequence = ?, acknowledged = 0 \
         WHERE id = ? AND epoch = ? AND next_sequence = ?",
    )
    .bind(append.status.as_str())
    .bind(append.operation.as_str())
    .bind(append.finished_at())
    .bind(append.next_sequence())
    .bind(task.0)
    .bind(append.epoch)
    .bind(append.sequence)
    .execute(&mut *connection)
    .await
    .map_err(StoreError::from)?;
    if claimed.rows_affected() != 1 {
        if takes {
            // Another coordinator came in between: what was taken for this one is undone, and the next attempt sees that.
            return Err(StoreError::Busy.into());
        }
        // A commit whose answer got lost has moved the sequence on as well; what it wrote tells it from a foreign claim.
        return if is_written(connection, append).await? { Ok(()) } else { Err(AppendError::Fenced(task)) };
    }
    write_events(connection, append).await?;
    for subtask in &append.subtasks {
        project(connection, append, subtask).await?;
    }
    if append.status == TaskStatus::Successful {
        locks::release(connection, task).await?;
    }
    Ok(())
}

/// Whether the journal of the task ends where these events begin, under their epoch. Whoever has lost the task takes
/// nothing for it.
async fn is_next(connection: &mut AnyConnection, append: &Append) -> Result<bool, StoreError> {
    let places = places(connection, [append.task]).await?;
    let place = places.get(&append.task);
    Ok(place.is_some_and(|place| (place.epoch, place.next_sequence) == (append.epoch, append.sequence)))
}

/// Whatever the decision was made on, an operator may have released the locks since.
async fn take_again(connection: &mut AnyConnection, task: TaskId) -> Result<(), AppendError> {
    let Some(record) = get(connection, task).await? else { return Ok(()) };
    locks::retake(connection, task, &record.plan).await?.map_err(AppendError::Reserved)
}

/// In one statement: most appends have two events, an outcome and what follows from it.
async fn write_events(connection: &mut AnyConnection, append: &Append) -> Result<(), StoreError> {
    let mut rows = Vec::with_capacity(append.events.len());
    for (sequence, event) in (append.sequence..).zip(&append.events) {
        rows.push((sequence, event, encode(event)?));
    }
    let mut query = QueryBuilder::<Any>::new(INSERT_EVENTS);
    query.push_values(rows, |row, (sequence, event, payload)| event_row(row, append, sequence, event, payload));
    query.build().execute(connection).await?;
    Ok(())
}

pub(super) const INSERT_EVENTS: &str =
    "INSERT INTO task_events (task_id, sequence, node, attempt, kind, payload, epoch, created_at) ";

/// The columns of [`INSERT_EVENTS`].
pub(super) fn event_row(
    mut row: Separated<'_, Any, &'static str>,
    append: &Append,
    sequence: i64,
    event: &Event,
    payload: String,
) {
    let run = event.run();
    row.push_bind(append.task.0)
        .push_bind(sequence)
        .push_bind(run.map(|(node, _)| i64::from(node.0)))
        .push_bind(run.map(|(_, attempt)| i64::from(attempt)))
        .push_bind(event.kind())
        .push_bind(payload)
        .push_bind(append.epoch)
        .push_bind(append.at);
}

async fn is_written(connection: &mut AnyConnection, append: &Append) -> Result<bool, StoreError> {
    let rows = sqlx::query(
        "SELECT payload FROM task_events WHERE task_id = ? AND sequence >= ? AND sequence < ? AND epoch = ? \
         ORDER BY sequence",
    )
    .bind(append.task.0)
    .bind(append.sequence)
    .bind(append.next_sequence())
    .bind(append.epoch)
    .fetch_all(connection)
    .await?;
    let written: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let wanted: Vec<String> = append.events.iter().map(encode).collect::<Result<_, _>>()?;
    Ok(written == wanted)
}

pub(super) async fn project(
    connection: &mut AnyConnection,
    append: &Append,
    subtask: &SubtaskChange,
) -> Result<(), StoreError> {
    let Clock { started, ended } = subtask.clock;
    sqlx::query(
        "UPDATE subtasks SET started_at = COALESCE(?, started_at), \
         finished_at = CASE WHEN ? = 1 THEN ? ELSE finished_at END, \
         status = ?, operation = ?, run_time = ?, failure = ? WHERE task_id = ? AND node = ?",
    )
    .bind(started.then_some(append.at))
    .bind(i64::from(started || ended))
    .bind(ended.then_some(append.at))
    .bind(subtask.status.as_str())
    .bind(subtask.operation.as_str())
    .bind(i64::from(subtask.attempt))
    .bind(subtask.failure.as_ref().map(encode).transpose()?)
    .bind(append.task.0)
    .bind(i64::from(subtask.node.0))
    .execute(connection)
    .await?;
    Ok(())
}
