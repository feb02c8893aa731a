//! Objects that tasks reserve: hosts, proxy clusters, proxies.
//!
//!  1. A task takes all its locks in the transaction that creates it, or is not created.
//!  2. It holds them until it is SUCCESSFUL, also while it is FAILED and waits for a decision; they are released in the
//!     transaction of its last event.
//!  3. Tasks take locks one after the other, also where a store has several writers: see [`take`].
//!  4. An operator may release the locks of a task that does not run. It takes them again in the transaction of the event
//!     by which it runs again, under the epoch that holds it, or does not run.

use super::{
    StoreError, allocate,
    columns::{Cause, parse},
    pieces, push_in,
    task::id::TaskId,
};
use crate::{
    graph::TaskStatus,
    operations::{ObjectLock, TaskPlan},
};
use jiff::Timestamp;
use sqlx::{Any, AnyConnection, QueryBuilder, Row as _, any::AnyRow};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

/// The task that stands in the way of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The lock as it is held.
    pub lock: ObjectLock,
    pub task: TaskId,
    pub name: String,
    pub status: TaskStatus,
    /// When the task came to this status, in microseconds since 1970.
    pub since: i64,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lock, task, name, status, since } = self;
        let since = Timestamp::from_microsecond(*since).unwrap_or(Timestamp::UNIX_EPOCH);
        write!(f, "{lock} is reserved by task {task}, {name}, {status} since {since:.3}")
    }
}

/// Takes locks for a task, which may hold them already: all of them, or none if one is held by another.
///
/// No unique key can refuse two shared locks and an exclusive one, so looking and writing are one turn, for which a row
/// is written first.
pub async fn take(
    connection: &mut AnyConnection,
    task: TaskId,
    locks: &[ObjectLock],
) -> Result<Result<(), Holder>, StoreError> {
    if locks.is_empty() {
        return Ok(Ok(()));
    }
    wait_for_turn(connection).await?;
    let wanted: Vec<_> = locks.iter().map(|lock| (task, *lock)).collect();
    if let Some(holder) = conflict(connection, Some(task), &wanted).await? {
        return Ok(Err(holder));
    }
    // Those that it still holds are among them.
    release_all(connection, &[task]).await?;
    insert(connection, &wanted).await?;
    Ok(Ok(()))
}

/// Takes the locks of tasks that were just written and hold none; each names an object once. If one is held by another
/// task, be it of these or not, the caller rolls back.
pub async fn take_first(
    connection: &mut AnyConnection,
    wanted: &[(TaskId, ObjectLock)],
) -> Result<Result<(), Holder>, StoreError> {
    if wanted.is_empty() {
        return Ok(Ok(()));
    }
    wait_for_turn(connection).await?;
    for part in without_conflict(wanted) {
        if let Some(holder) = conflict(connection, None, part).await? {
            return Ok(Err(holder));
        }
        insert(connection, part).await?;
    }
    Ok(Ok(()))
}

/// Cuts before every lock that is in conflict with one before it, so that it finds that one in the store.
fn without_conflict(mut rest: &[(TaskId, ObjectLock)]) -> impl Iterator<Item = &[(TaskId, ObjectLock)]> {
    std::iter::from_fn(move || {
        let mut seen = HashMap::new();
        let mut fits = |(_, lock): &(TaskId, ObjectLock)| {
            let before = seen.insert((lock.kind.as_str(), lock.id), lock.exclusive);
            before.is_none_or(|exclusive| !exclusive && !lock.exclusive)
        };
        let end = rest.iter().position(|row| !fits(row)).unwrap_or(rest.len());
        let (part, others) = rest.split_at_checked(end)?;
        rest = others;
        (!part.is_empty()).then_some(part)
    })
}

async fn insert(connection: &mut AnyConnection, locks: &[(TaskId, ObjectLock)]) -> Result<(), StoreError> {
    for piece in pieces(locks) {
        let mut query =
            QueryBuilder::<Any>::new("INSERT INTO object_locks (object_kind, object_id, task_id, exclusive) ");
        query.push_values(piece, |mut row, (task, lock)| {
            row.push_bind(lock.kind.as_str()).push_bind(lock.id).push_bind(task.0).push_bind(i64::from(lock.exclusive));
        });
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Releases whatever a task holds, and answers what that was.
pub async fn release(connection: &mut AnyConnection, task: TaskId) -> Result<Vec<ObjectLock>, StoreError> {
    let rows = sqlx::query("SELECT * FROM object_locks WHERE task_id = ? ORDER BY object_kind, object_id")
        .bind(task.0)
        .fetch_all(&mut *connection)
        .await?;
    let locks = rows.iter().map(read_lock).collect::<Result<Vec<_>, _>>()?;
    if !locks.is_empty() {
        sqlx::query("DELETE FROM object_locks WHERE task_id = ?").bind(task.0).execute(connection).await?;
    }
    Ok(locks)
}

/// Releases whatever any of these tasks holds.
pub async fn release_all(connection: &mut AnyConnection, tasks: &[TaskId]) -> Result<(), StoreError> {
    release_query(tasks).build().execute(connection).await?;
    Ok(())
}

pub(super) fn release_query(tasks: &[TaskId]) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("DELETE FROM object_locks WHERE task_id");
    push_in(&mut query, tasks.iter().map(|task| task.0));
    query
}

/// Who would refuse this lock to a task that holds nothing.
pub async fn holder(connection: &mut AnyConnection, lock: &ObjectLock) -> Result<Option<Holder>, StoreError> {
    conflict(connection, None, &[(TaskId(0), *lock)]).await
}

/// Waits for the turn in which locks are looked at and changed, and keeps it until the transaction ends.
pub async fn wait_for_turn(connection: &mut AnyConnection) -> Result<(), StoreError> {
    allocate(connection, "object_lock", 1).await.map(drop)
}

/// Who stands in the way of a task that is to run again.
pub async fn obstacle(
    connection: &mut AnyConnection,
    task: TaskId,
    plan: &TaskPlan,
) -> Result<Option<Holder>, StoreError> {
    let wanted: Vec<_> = plan.locks.iter().map(|lock| (task, *lock)).collect();
    conflict(connection, Some(task), &wanted).await
}

/// Takes the locks of a task that is to run again, in case they were released meanwhile. The caller commits.
pub async fn retake(
    connection: &mut AnyConnection,
    task: TaskId,
    plan: &TaskPlan,
) -> Result<Result<(), Holder>, StoreError> {
    let row =
        sqlx::query("SELECT status FROM tasks WHERE id = ?").bind(task.0).fetch_optional(&mut *connection).await?;
    let damaged = |source| StoreError::Damaged { table: "tasks", id: task.0, source };
    match row.map(|row| parse::<TaskStatus>(&row, "status")).transpose().map_err(damaged)? {
        Some(TaskStatus::Running | TaskStatus::Failed) => take(connection, task, &plan.locks).await,
        // Nothing would release them any more.
        Some(TaskStatus::Successful) | None => Ok(Ok(())),
    }
}

/// A lock of another task than `own` that stands in the way of one of these.
async fn conflict(
    connection: &mut AnyConnection,
    own: Option<TaskId>,
    wanted: &[(TaskId, ObjectLock)],
) -> Result<Option<Holder>, StoreError> {
    let mut objects = BTreeMap::<_, BTreeSet<i64>>::new();
    for (_, ObjectLock { kind, id, exclusive }) in wanted {
        objects.entry((kind.as_str(), *exclusive)).or_default().insert(*id);
    }
    for ((kind, exclusive), ids) in objects {
        let ids: Vec<i64> = ids.into_iter().collect();
        for piece in pieces(&ids) {
            let row = conflict_query(own, kind, exclusive, piece).build().fetch_optional(&mut *connection).await?;
            if let Some(row) = row {
                return Ok(Some(read_holder(&row)?));
            }
        }
    }
    Ok(None)
}

pub(super) fn conflict_query(
    own: Option<TaskId>,
    kind: &'static str,
    exclusive: bool,
    objects: &[i64],
) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new(
        "SELECT l.object_kind, l.object_id, l.task_id, l.exclusive, t.name, t.status, t.created_at, t.finished_at \
         FROM object_locks l JOIN tasks t ON t.id = l.task_id WHERE l.object_kind = ",
    );
    query.push_bind(kind).push(" AND l.object_id");
    push_in(&mut query, objects.iter().copied());
    if let Some(own) = own {
        query.push(" AND l.task_id <> ").push_bind(own.0);
    }
    if !exclusive {
        query.push(" AND l.exclusive = 1");
    }
    query.push(" ORDER BY l.object_id, l.task_id LIMIT 1");
    query
}

fn read_holder(row: &AnyRow) -> Result<Holder, StoreError> {
    let task: i64 = row.try_get("task_id")?;
    let finished_at: Option<i64> = row.try_get("finished_at")?;
    Ok(Holder {
        lock: read_lock(row)?,
        task: TaskId(task),
        name: row.try_get("name")?,
        // A damaged task is in the way like any other that does not go on by itself.
        status: parse(row, "status").unwrap_or(TaskStatus::Failed),
        since: finished_at.map_or_else(|| row.try_get("created_at"), Ok)?,
    })
}

fn read_lock(row: &AnyRow) -> Result<ObjectLock, StoreError> {
    let id: i64 = row.try_get("object_id")?;
    let damaged = |source: Cause| StoreError::Damaged { table: "object_locks", id, source };
    Ok(ObjectLock {
        kind: parse(row, "object_kind").map_err(damaged)?,
        id,
        exclusive: row.try_get::<i64, _>("exclusive")? != 0,
    })
}
