use super::super::{Store, StoreError, now_micros};
use crate::graph::TaskStatus;
use sqlx::{Any, AnyConnection, QueryBuilder, Row as _};

/// Tasks whose logs are removed in one call, so that whoever writes waits for little.
const TASKS_PER_CALL: i64 = 100;

/// Removes the logs of tasks that came to rest before `before`, in microseconds since 1970, and then, the oldest tasks
/// first, as many as it takes until all logs together have at most `max_total_bytes`. Logs of running tasks stay.
/// Answers from how many tasks it removed them; at most 100 in one call.
pub async fn expire(store: &Store, before: i64, max_total_bytes: i64) -> Result<usize, StoreError> {
    let mut readers = store.readers().acquire().await?;
    let mut excess = stored_bytes(&mut readers, None).await?.saturating_sub(max_total_bytes);
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
        let bytes = stored_bytes(&mut readers, Some(task)).await?;
        if remove(store, task).await? {
            removed += 1;
            excess = excess.saturating_sub(bytes);
        }
    }
    Ok(removed)
}

/// Bytes of the logs of one task, or of all.
async fn stored_bytes(connection: &mut AnyConnection, task: Option<i64>) -> Result<i64, StoreError> {
    let mut query =
        QueryBuilder::<Any>::new("SELECT CAST(COALESCE(SUM(OCTET_LENGTH(text)), 0) AS SIGNED) FROM subtask_logs");
    if let Some(task) = task {
        query.push(" WHERE task_id = ").push_bind(task);
    }
    Ok(query.build().fetch_one(connection).await?.try_get(0)?)
}

/// Answers whether the logs are gone: a task that was taken up again meanwhile keeps them.
async fn remove(store: &Store, task: i64) -> Result<bool, StoreError> {
    let mut transaction = store.begin().await?;
    let marked = sqlx::query("UPDATE tasks SET logs_removed_at = ? WHERE id = ? AND status <> ?")
        .bind(now_micros())
        .bind(task)
        .bind(TaskStatus::Running.as_str())
        .execute(&mut *transaction)
        .await?;
    if marked.rows_affected() != 1 {
        return Ok(false);
    }
    sqlx::query("DELETE FROM subtask_logs WHERE task_id = ?").bind(task).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(true)
}
