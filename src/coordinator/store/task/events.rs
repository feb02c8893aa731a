//! The journal of a task as operators follow it.

use super::{TaskId, parse};
use crate::{
    coordinator::store::StoreError,
    graph::{NodeIndex, SubtaskStatus, TaskStatus},
};
use serde::Deserialize;
use sqlx::{AnyConnection, Row as _, any::AnyRow};
use std::{collections::HashMap, num::TryFromIntError};

/// An event of a task's journal, without what only the engine needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEvent {
    pub sequence: i64,
    pub kind: String,
    /// Microseconds since 1970.
    pub at: i64,
    /// The subtask it is about, if it is about one.
    pub node: Option<NodeIndex>,
    pub attempt: Option<u32>,
    /// Who decided, if it is a decision.
    pub by: Option<String>,
}

/// What is shown of an event's payload, so that a payload that this program cannot read whole is shown all the same.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Shown {
    node: Option<NodeIndex>,
    attempt: Option<u32>,
    by: Option<String>,
}

/// The events after a sequence number, oldest first, at most `limit`.
pub async fn after(
    connection: &mut AnyConnection,
    task: TaskId,
    sequence: i64,
    limit: i64,
) -> Result<Vec<JournalEvent>, StoreError> {
    let rows = sqlx::query(
        "SELECT sequence, kind, payload, created_at FROM task_events WHERE task_id = ? AND sequence > ? \
         ORDER BY sequence LIMIT ?",
    )
    .bind(task.0)
    .bind(sequence)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}

fn read(row: &AnyRow) -> Result<JournalEvent, StoreError> {
    let shown: Shown = serde_json::from_str(&row.try_get::<String, _>("payload")?).unwrap_or_default();
    Ok(JournalEvent {
        sequence: row.try_get("sequence")?,
        kind: row.try_get("kind")?,
        at: row.try_get("created_at")?,
        node: shown.node,
        attempt: shown.attempt,
        by: shown.by,
    })
}

/// Status of a task; None if there is no such task.
pub async fn status(connection: &mut AnyConnection, task: TaskId) -> Result<Option<TaskStatus>, StoreError> {
    let row = sqlx::query("SELECT status FROM tasks WHERE id = ?").bind(task.0).fetch_optional(connection).await?;
    // A damaged task does not go on by itself, like one that failed.
    Ok(row.map(|row| parse(&row, "status").unwrap_or(TaskStatus::Failed)))
}

/// Place and status of a subtask; None if the task has no such subtask.
pub async fn subtask_status(
    connection: &mut AnyConnection,
    task: TaskId,
    subtask: i64,
) -> Result<Option<(NodeIndex, SubtaskStatus)>, StoreError> {
    let row = sqlx::query("SELECT node, status FROM subtasks WHERE task_id = ? AND id = ?")
        .bind(task.0)
        .bind(subtask)
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let damaged = |source| StoreError::Damaged { table: "subtasks", id: subtask, source };
    let node = u32::try_from(row.try_get::<i64, _>("node")?).map_err(|error| damaged(error.into()))?;
    Ok(Some((NodeIndex(node), parse(&row, "status").map_err(damaged)?)))
}

/// Ids of the subtasks of a task, by their places in its graph.
pub async fn subtask_ids(connection: &mut AnyConnection, task: TaskId) -> Result<HashMap<NodeIndex, i64>, StoreError> {
    let rows =
        sqlx::query("SELECT node, id FROM subtasks WHERE task_id = ?").bind(task.0).fetch_all(connection).await?;
    let entry = |row: &AnyRow| {
        let (node, id): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let damaged = |error: TryFromIntError| StoreError::Damaged { table: "subtasks", id, source: error.into() };
        Ok((NodeIndex(u32::try_from(node).map_err(damaged)?), id))
    };
    rows.iter().map(entry).collect()
}
