use crate::{
    coordinator::store::{Store, StoreError, count_log_bytes, now_micros},
    graph::TaskStatus,
};
use sqlx::{AnyConnection, Row as _};

/// Tasks whose logs are removed in one call, so that whoever writes waits for little.
const TASKS_PER_CALL: i64 = 100;

/// Removes the logs of tasks that came to rest before `before`, in microseconds since 1970, and then, the oldest tasks
/// first, as many as it takes until all logs together have at most `max_total_bytes`. Logs of running tasks stay.
/// Answers from how many tasks it removed them; at most 100 in one call.
pub async fn expire(store: &Store, before: i64, max_total_bytes: i64) -> Result<usize, StoreError> {
    let mut readers = store.engine_readers().acquire().await?;
    let stored = sqlx::query("SELECT next_value FROM sequences WHERE name = 'subtask_log_bytes'");
    let stored: i64 = stored.fetch_one(&mut *readers).await?.try_get(0)?;
    let mut excess = stored.saturating_sub(max_total_bytes);
    let candidates = sqlx::query(
        "SELECT id, finished_at FROM tasks WHERE status <> ? AND finished_at IS NOT NULL \
         AND (logs_removed_at IS NULL OR logs_removed_at < finished_at) ORDER BY finished_at, id LIMIT ?",
    )
    .bind(TaskStatus::Running.as_str())
    .bind(TASKS_PER_CALL)
    .fetch_all(&mut *readers)
    .await?;
    let mut removed = 0;
    for row in candidates {
        let (task, finished_at): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        if finished_at >= before && excess <= 0 {
            break;
        }
        if let Some(bytes) = remove(store, task, finished_at).await? {
            removed += 1;
            excess = excess.saturating_sub(bytes);
        }
    }
    Ok(removed)
}

/// Removes the logs of a task, and answers their bytes.
pub(in crate::coordinator::store) async fn remove_all(
    connection: &mut AnyConnection,
    task: i64,
) -> Result<i64, StoreError> {
    let bytes =
        sqlx::query("SELECT CAST(COALESCE(SUM(OCTET_LENGTH(text)), 0) AS SIGNED) FROM subtask_logs WHERE task_id = ?");
    let bytes: i64 = bytes.bind(task).fetch_one(&mut *connection).await?.try_get(0)?;
    sqlx::query("DELETE FROM subtask_logs WHERE task_id = ?").bind(task).execute(&mut *connection).await?;
    count_log_bytes(connection, -bytes).await?;
    Ok(bytes)
}

/// Answers how many bytes are gone; None: the task was taken up again meanwhile and keeps its logs.
async fn remove(store: &Store, task: i64, finished_at: i64) -> Result<Option<i64>, StoreError> {
    let mut transaction = store.begin_patiently().await?;
    let marked = sqlx::query("UPDATE tasks SET logs_removed_at = ? WHERE id = ? AND status <> ?")
        // Never before the task came to rest, also if the clock was set back: it would be found again for ever.
        .bind(now_micros().max(finished_at))
        .bind(task)
        .bind(TaskStatus::Running.as_str())
        .execute(&mut *transaction)
        .await?;
    if marked.rows_affected() != 1 {
        return Ok(None);
    }
    let bytes = remove_all(&mut transaction, task).await?;
    transaction.commit().await?;
    Ok(Some(bytes))
}
