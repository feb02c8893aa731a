//! Requests that carry a key, so that the same request again answers what it made and makes nothing.
//! The row is written in the transaction that makes the tasks.

use super::{
    StoreError,
    columns::{decode, encode},
    now_micros,
    task::TaskId,
};
use sqlx::{AnyConnection, Row as _};

/// Under what a request is found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    pub user: String,
    pub key: String,
}

/// A request that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRequest {
    /// Tells whether another request with this key asks for the same.
    pub fingerprint: String,
    /// What it made, in the order of its answer.
    pub tasks: Vec<TaskId>,
    /// Microseconds since 1970.
    pub created_at: i64,
}

pub async fn find(connection: &mut AnyConnection, key: &RequestKey) -> Result<Option<KnownRequest>, StoreError> {
    let row = sqlx::query(
        "SELECT fingerprint, task_ids, created_at FROM idempotent_requests WHERE user_name = ? AND request_key = ?",
    )
    .bind(&key.user)
    .bind(&key.key)
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let created_at = row.try_get("created_at")?;
    let damaged = |source| StoreError::Damaged { table: "idempotent_requests", id: created_at, source };
    let tasks: Vec<i64> = decode(&row.try_get::<String, _>("task_ids")?).map_err(damaged)?;
    let tasks = tasks.into_iter().map(TaskId).collect();
    Ok(Some(KnownRequest { fingerprint: row.try_get("fingerprint")?, tasks, created_at }))
}

/// Fails with a conflict ([`StoreError::is_conflict`]) if the key is known.
pub async fn insert(
    connection: &mut AnyConnection,
    key: &RequestKey,
    fingerprint: &str,
    tasks: &[TaskId],
) -> Result<(), StoreError> {
    let ids: Vec<i64> = tasks.iter().map(|task| task.0).collect();
    sqlx::query(
        "INSERT INTO idempotent_requests (user_name, request_key, fingerprint, task_ids, created_at) \
         VALUES (?, ?, ?, ?, ?)",
    )
    .bind(&key.user)
    .bind(&key.key)
    .bind(fingerprint)
    .bind(encode(&ids)?)
    .bind(now_micros())
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets the keys of requests older than `before`, in microseconds since 1970; answers how many those were.
pub async fn expire(connection: &mut AnyConnection, before: i64) -> Result<u64, StoreError> {
    let done = sqlx::query("DELETE FROM idempotent_requests WHERE created_at < ?").bind(before).execute(connection);
    Ok(done.await?.rows_affected())
}
