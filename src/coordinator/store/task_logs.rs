//! Logs of attempts, in parts, with the place in the agent's log that they reach to.

use super::{StoreError, tasks::TaskId};
use crate::graph::NodeIndex;
use sqlx::{AnyConnection, AnyPool, Row as _};

/// Longest log that is kept of one attempt.
const MAX_LOG_BYTES: i64 = 1 << 20;
const TRUNCATED: &str = "\n[truncated: the whole log is on the host]\n";

/// Where the log of an attempt stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogPosition {
    pub next_part: i64,
    /// Bytes of the agent's log that are in.
    pub agent_offset: i64,
    pub stored_bytes: i64,
}

pub async fn log_position(
    pool: &AnyPool,
    task: TaskId,
    node: NodeIndex,
    attempt: u32,
) -> Result<LogPosition, StoreError> {
    let row = sqlx::query(
        "SELECT COALESCE(MAX(part) + 1, 0), COALESCE(MAX(agent_offset), 0), COALESCE(SUM(LENGTH(text)), 0) \
         FROM subtask_logs WHERE task_id = ? AND node = ? AND attempt = ?",
    )
    .bind(task.0)
    .bind(i64::from(node.0))
    .bind(i64::from(attempt))
    .fetch_one(pool)
    .await?;
    Ok(LogPosition { next_part: row.try_get(0)?, agent_offset: row.try_get(1)?, stored_bytes: row.try_get(2)? })
}

impl LogPosition {
    /// Where the log stands after `text`.
    pub fn after(self, text: &str) -> Self {
        if self.stored_bytes >= MAX_LOG_BYTES {
            return self;
        }
        let length = i64::try_from(text.len()).unwrap_or(i64::MAX);
        let stored_bytes = self.stored_bytes.saturating_add(length).min(MAX_LOG_BYTES);
        Self { next_part: self.next_part + 1, stored_bytes, ..self }
    }
}

/// Adds text to the log of an attempt; past the limit it is dropped, with a mark.
pub async fn append_log(
    connection: &mut AnyConnection,
    (task, node, attempt): (TaskId, NodeIndex, u32),
    position: LogPosition,
    text: &str,
) -> Result<(), StoreError> {
    let after = position.after(text);
    if after == position {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO subtask_logs (task_id, node, attempt, part, text, agent_offset) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(task.0)
    .bind(i64::from(node.0))
    .bind(i64::from(attempt))
    .bind(position.next_part)
    .bind(if after.stored_bytes == MAX_LOG_BYTES { TRUNCATED } else { text })
    .bind(position.agent_offset)
    .execute(connection)
    .await?;
    Ok(())
}

/// The log of all attempts of a subtask, in their order; None if the task has no such subtask.
pub async fn log(connection: &mut AnyConnection, task: TaskId, subtask_id: i64) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT node FROM subtasks WHERE task_id = ? AND id = ?")
        .bind(task.0)
        .bind(subtask_id)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let node: i64 = row.try_get(0)?;
    let rows = sqlx::query("SELECT text FROM subtask_logs WHERE task_id = ? AND node = ? ORDER BY attempt, part")
        .bind(task.0)
        .bind(node)
        .fetch_all(&mut *connection)
        .await?;
    let parts: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
    Ok(Some(parts?.concat()))
}
