//! Who changed what: one row per change, written in the transaction of the change where there is one.

use super::{Store, StoreError, allocate, now_micros, pieces};
use sqlx::{Any, AnyConnection, QueryBuilder, Row as _, any::AnyRow};

/// A change that a user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    pub id: i64,
    /// Microseconds since 1970.
    pub created_at: i64,
    pub user: String,
    /// The action, such as `task.retry`.
    pub action: String,
    /// The changed object, such as `task 33001`.
    pub object: String,
    pub detail: String,
    /// Trace id of the request.
    pub trace_id: String,
}

/// A change before it has an id and a time.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    pub user: &'a str,
    pub action: &'a str,
    pub object: &'a str,
    /// Never holds a secret.
    pub detail: &'a str,
    pub trace_id: &'a str,
}

pub async fn write(connection: &mut AnyConnection, changes: &[Change<'_>]) -> Result<(), StoreError> {
    let count = i64::try_from(changes.len()).unwrap_or(i64::MAX);
    let first = allocate(connection, "audit_event", count).await?;
    let now = now_micros();
    let events: Vec<_> = (first..).zip(changes).collect();
    for piece in pieces(&events) {
        let mut query = QueryBuilder::<Any>::new(
            "INSERT INTO audit_events (id, created_at, user_name, action, object, detail, trace_id) ",
        );
        query.push_values(piece, |mut row, (id, change)| {
            row.push_bind(*id).push_bind(now).push_bind(change.user.to_owned()).push_bind(change.action.to_owned());
            row.push_bind(change.object.to_owned()).push_bind(change.detail.to_owned());
            row.push_bind(change.trace_id.to_owned());
        });
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Answers one page, newest first, and the number of all events.
pub async fn list(
    connection: &mut AnyConnection,
    limit: i64,
    offset: i64,
) -> Result<(Vec<AuditEvent>, i64), StoreError> {
    let total = sqlx::query("SELECT COUNT(*) FROM audit_events").fetch_one(&mut *connection).await?.try_get(0)?;
    let rows = sqlx::query("SELECT * FROM audit_events ORDER BY id DESC LIMIT ? OFFSET ?")
        .bind(limit)
        .bind(offset)
        .fetch_all(connection)
        .await?;
    Ok((rows.iter().map(read).collect::<Result<_, _>>()?, total))
}

/// Events that are removed in one transaction, so that whoever writes waits for little.
const EVENTS_PER_CALL: i64 = 500;

/// Removes events from before `before`, in microseconds since 1970, oldest first; answers how many, some five hundred in
/// one call.
pub async fn expire(store: &Store, before: i64) -> Result<u64, StoreError> {
    let mut transaction = store.begin_patiently().await?;
    let last = "SELECT created_at FROM audit_events WHERE created_at < ? ORDER BY created_at LIMIT 1 OFFSET ?";
    let last = sqlx::query(last).bind(before).bind(EVENTS_PER_CALL - 1).fetch_optional(&mut *transaction).await?;
    let last = last.map_or(Ok(before.saturating_sub(1)), |row| row.try_get(0))?;
    let done = sqlx::query("DELETE FROM audit_events WHERE created_at <= ?").bind(last);
    let done = done.execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(done.rows_affected())
}

fn read(row: &AnyRow) -> Result<AuditEvent, StoreError> {
    Ok(AuditEvent {
        id: row.try_get("id")?,
        created_at: row.try_get("created_at")?,
        user: row.try_get("user_name")?,
        action: row.try_get("action")?,
        object: row.try_get("object")?,
        detail: row.try_get("detail")?,
        trace_id: row.try_get("trace_id")?,
    })
}
