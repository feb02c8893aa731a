use super::{StoreError, TaskId};
use crate::graph::NodeIndex;
use jiff::Timestamp;
use sqlx::{AnyConnection, Row as _};

/// Parts that are read at a time, at most.
const PARTS: i64 = 64;

/// A place in the log of all attempts of a subtask. The default is its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogCursor {
    attempt: i64,
    part: i64,
    /// Bytes of that part that lie before the place.
    within: usize,
    offset: u64,
}

impl LogCursor {
    /// Bytes of the whole log that lie before the place.
    pub fn offset(self) -> u64 {
        self.offset
    }
}

/// The place at a byte offset, or the end of the log if it is shorter.
pub async fn seek(
    connection: &mut AnyConnection,
    task: TaskId,
    node: NodeIndex,
    offset: u64,
) -> Result<LogCursor, StoreError> {
    let mut cursor = LogCursor::default();
    if offset == 0 {
        return Ok(cursor);
    }
    let rows = sqlx::query(
        "SELECT attempt, part, OCTET_LENGTH(text) FROM subtask_logs WHERE task_id = ? AND node = ? \
         ORDER BY attempt, part",
    )
    .bind(task.0)
    .bind(i64::from(node.0))
    .fetch_all(connection)
    .await?;
    for row in rows {
        let (attempt, part) = (row.try_get(0)?, row.try_get::<i64, _>(1)?);
        let length = u64::try_from(row.try_get::<i64, _>(2)?).unwrap_or(0);
        if cursor.offset + length > offset {
            let within = usize::try_from(offset - cursor.offset).unwrap_or(usize::MAX);
            return Ok(LogCursor { attempt, part, within, offset });
        }
        cursor = LogCursor { attempt, part: part + 1, within: 0, offset: cursor.offset + length };
    }
    Ok(cursor)
}

/// At most `limit` bytes of the log from a place on, cut at the end of a character, and the place after them.
pub async fn read_from(
    connection: &mut AnyConnection,
    (task, node): (TaskId, NodeIndex),
    mut cursor: LogCursor,
    limit: usize,
) -> Result<(String, LogCursor), StoreError> {
    let rows = sqlx::query(
        "SELECT attempt, part, text FROM subtask_logs WHERE task_id = ? AND node = ? \
         AND (attempt, part) >= (?, ?) ORDER BY attempt, part LIMIT ?",
    )
    .bind(task.0)
    .bind(i64::from(node.0))
    .bind(cursor.attempt)
    .bind(cursor.part)
    .bind(PARTS)
    .fetch_all(connection)
    .await?;
    let mut chunk = String::new();
    for row in rows {
        let (attempt, part) = (row.try_get(0)?, row.try_get::<i64, _>(1)?);
        let text: String = row.try_get(2)?;
        let within = if (attempt, part) == (cursor.attempt, cursor.part) { cursor.within } else { 0 };
        // An offset may have been made up and lie inside a character, which is read whole then.
        let begin = text.floor_char_boundary(within);
        cursor.offset -= (within.min(text.len()) - begin) as u64;
        let (_, rest) = text.split_at(begin);
        let (kept, left) = rest.split_at(rest.floor_char_boundary(limit - chunk.len()));
        chunk.push_str(kept);
        let offset = cursor.offset + kept.len() as u64;
        if !left.is_empty() {
            cursor = LogCursor { attempt, part, within: text.len() - left.len(), offset };
            break;
        }
        cursor = LogCursor { attempt, part: part + 1, within: 0, offset };
    }
    Ok((chunk, cursor))
}

/// What stands in place of logs that retention has removed; None if it has removed none of the task's.
pub async fn removed(connection: &mut AnyConnection, task: TaskId) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT logs_removed_at FROM tasks WHERE id = ?").bind(task.0).fetch_optional(connection);
    let Some(row) = row.await? else { return Ok(None) };
    let at: Option<i64> = row.try_get(0)?;
    let time = |micros| Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH);
    Ok(at.map(|micros| format!("[what was written before {:.3} was removed by retention]\n", time(micros))))
}

/// The log of all attempts of a subtask, in their order; None if the task has no such subtask.
pub async fn log(connection: &mut AnyConnection, task: TaskId, subtask_id: i64) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT node, started_at FROM subtasks WHERE task_id = ? AND id = ?")
        .bind(task.0)
        .bind(subtask_id)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let node: i64 = row.try_get(0)?;
    let has_run = row.try_get::<Option<i64>, _>(1)?.is_some();
    let mut log = if has_run { removed(connection, task).await?.unwrap_or_default() } else { String::new() };
    let rows = sqlx::query("SELECT text FROM subtask_logs WHERE task_id = ? AND node = ? ORDER BY attempt, part")
        .bind(task.0)
        .bind(node)
        .fetch_all(&mut *connection)
        .await?;
    for row in rows {
        log.push_str(&row.try_get::<String, _>(0)?);
    }
    Ok(Some(log))
}
