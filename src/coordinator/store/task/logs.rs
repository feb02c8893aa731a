//! Logs of attempts, in parts, with the place in the agent's log that they reach to.

mod read;
mod retention;

pub use read::{LogCursor, log, read_from, removed, seek};
pub use retention::expire;
pub(super) use retention::remove_all;

use super::TaskId;
use crate::{
    coordinator::store::{StoreError, count_log_bytes, pieces},
    graph::NodeIndex,
};
use sqlx::{Any, AnyConnection, AnyPool, QueryBuilder, Row as _};
use std::borrow::Cow;

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
        "SELECT COALESCE(MAX(part) + 1, 0), COALESCE(MAX(agent_offset), 0), \
         CAST(COALESCE(SUM(OCTET_LENGTH(text)), 0) AS SIGNED) \
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

    /// As much of `text` as there is room for, with a mark where that ends.
    fn cut(self, text: &str) -> String {
        let room = usize::try_from(MAX_LOG_BYTES - self.stored_bytes).unwrap_or(0);
        let (kept, _) = text.split_at(text.floor_char_boundary(room));
        // A character that was cut may leave the log a few bytes short of its limit; the mark makes up for it.
        format!("{kept}{TRUNCATED}")
    }
}

/// Text for the log of one attempt.
#[derive(Debug, Clone, Copy)]
pub struct LogPart<'a> {
    pub task: TaskId,
    pub node: NodeIndex,
    pub attempt: u32,
    /// Where the log stands before it.
    pub position: LogPosition,
    pub text: &'a str,
}

/// Adds text to the log of an attempt; past the limit it is dropped, with a mark.
pub async fn append_log(
    connection: &mut AnyConnection,
    (task, node, attempt): (TaskId, NodeIndex, u32),
    position: LogPosition,
    text: &str,
) -> Result<(), StoreError> {
    append_logs(connection, &[LogPart { task, node, attempt, position, text }]).await
}

/// The same for many attempts, in a few statements.
pub async fn append_logs(connection: &mut AnyConnection, parts: &[LogPart<'_>]) -> Result<(), StoreError> {
    let mut rows = Vec::with_capacity(parts.len());
    for part in parts {
        let after = part.position.after(part.text);
        if after != part.position {
            let is_cut = after.stored_bytes == MAX_LOG_BYTES;
            rows.push((part, if is_cut { part.position.cut(part.text).into() } else { Cow::Borrowed(part.text) }));
        }
    }
    for piece in pieces(&rows) {
        let mut query =
            QueryBuilder::<Any>::new("INSERT INTO subtask_logs (task_id, node, attempt, part, text, agent_offset) ");
        query.push_values(piece, |mut row, (part, kept)| {
            row.push_bind(part.task.0)
                .push_bind(i64::from(part.node.0))
                .push_bind(i64::from(part.attempt))
                .push_bind(part.position.next_part)
                .push_bind(kept.to_string())
                .push_bind(part.position.agent_offset);
        });
        query.build().execute(&mut *connection).await?;
    }
    match rows.iter().map(|(_, kept)| kept.len()).sum::<usize>() {
        0 => Ok(()),
        bytes => count_log_bytes(connection, i64::try_from(bytes).unwrap_or(i64::MAX)).await,
    }
}
