//! Tasks are not kept for ever: with its rows go its events and its logs.

use super::{Store, StoreError, logs};
use crate::graph::TaskStatus;
use sqlx::{AnyConnection, Row as _};

/// The newest tasks that stay however old they are.
pub const NEWEST_KEPT: i64 = 1000;
/// Tasks that are removed in one transaction, so that whoever writes waits for little.
const TASKS_PER_CALL: i64 = 20;

/// Removes tasks that came to rest before `before`, in microseconds since 1970, oldest first; the newest `keep` stay, and
/// so does a task that holds locks, because somebody has to decide about it. Answers how many were removed; at most 20
/// in one call.
pub async fn expire(store: &Store, before: i64, keep: i64) -> Result<usize, StoreError> {
    let mut transaction = store.begin_patiently().await?;
    let newest = sqlx::query("SELECT id FROM tasks ORDER BY id DESC LIMIT 1 OFFSET ?");
    let Some(newest) = newest.bind(keep).fetch_optional(&mut *transaction).await? else { return Ok(0) };
    let removable = sqlx::query(
        "SELECT id FROM tasks WHERE finished_at < ? AND id <= ? AND status <> ? \
         AND NOT EXISTS (SELECT 1 FROM object_locks WHERE object_locks.task_id = tasks.id) \
         ORDER BY finished_at, id LIMIT ?",
    )
    .bind(before)
    .bind(newest.try_get::<i64, _>(0)?)
    .bind(TaskStatus::Running.as_str())
    .bind(TASKS_PER_CALL)
    .fetch_all(&mut *transaction)
    .await?;
    for row in &removable {
        remove(&mut transaction, row.try_get(0)?).await?;
    }
    transaction.commit().await?;
    Ok(removable.len())
}

async fn remove(connection: &mut AnyConnection, task: i64) -> Result<(), StoreError> {
    logs::remove_all(connection, task).await?;
    for statement in [
        "DELETE FROM task_events WHERE task_id = ?",
        "DELETE FROM subtasks WHERE task_id = ?",
        "DELETE FROM tasks WHERE id = ?",
    ] {
        sqlx::query(statement).bind(task).execute(&mut *connection).await?;
    }
    Ok(())
}
