//! Tasks: the journal of events, and the rows that the API lists, written in the same transaction.

mod append;
pub(super) mod append_all;
mod create;
pub mod events;
pub(super) mod id;
pub(super) mod load;
pub mod logs;
mod retention;

pub use append::{Append, Clock, Draft, SubtaskChange, append};
pub use append_all::{Places, append_all, places};
pub use create::{CreateError, NewTask, Origin, create};
pub use id::TaskId;
pub use load::{LoadError, LoadedTask, TaskRows, load, rows};
pub use logs::{LogPosition, append_log, append_logs, log, log_position};
pub use retention::{NEWEST_KEPT, expire};

#[cfg(test)]
mod tests;

use super::{
    Store, StoreError, allocate,
    columns::{Cause, decode, encode, parse},
    locks::{self, Holder},
    now_micros, pieces, push_in,
};
use crate::{
    graph::{Failure, NodeIndex, Operation, SubtaskStatus, TaskStatus},
    operations::TaskPlan,
    steps::values::PackageRef,
};
use sqlx::{Any, AnyConnection, AnyPool, QueryBuilder, Row as _, any::AnyRow};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A task as its rows show it.
#[derive(Debug, Clone)]
pub struct TaskRecord {
    pub id: TaskId,
    pub plan: TaskPlan,
    pub status: TaskStatus,
    pub operation: Operation,
    pub creator: String,
    /// Address of the coordinator that runs it.
    pub executor: String,
    pub trace_id: String,
    pub created_at: i64,
    pub finished_at: Option<i64>,
    /// Why no coordinator can go on with it; an operator has to look.
    pub problem: Option<String>,
    /// The agents know that its outcomes are safe.
    pub acknowledged: bool,
    /// In the order of the plan's nodes.
    pub subtasks: Vec<SubtaskRecord>,
}

/// A subtask as its row shows it.
#[derive(Debug, Clone)]
pub struct SubtaskRecord {
    pub id: i64,
    pub node: NodeIndex,
    pub status: SubtaskStatus,
    pub operation: Operation,
    pub run_time: u32,
    pub started_at: Option<i64>,
    pub finished_at: Option<i64>,
    pub failure: Option<Failure>,
}

/// What a list of tasks is narrowed to; empty fields narrow nothing.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    pub name: Option<String>,
    pub statuses: Vec<TaskStatus>,
    pub host_id: Option<i64>,
    pub cluster_id: Option<i64>,
    /// Oldest first instead of newest first.
    pub ascending: bool,
}

/// Answers one page and the number of all tasks that fit.
pub async fn list(
    connection: &mut AnyConnection,
    filter: &TaskFilter,
    limit: i64,
    offset: i64,
) -> Result<(Vec<TaskRecord>, i64), StoreError> {
    let total: i64 = count_query(filter).build().fetch_one(&mut *connection).await?.try_get(0)?;
    let rows = page_query(filter, limit, offset).build().fetch_all(&mut *connection).await?;
    let ids = rows.iter().map(|row| row.try_get("id")).collect::<Result<Vec<i64>, _>>()?;
    let mut subtasks: HashMap<i64, Vec<AnyRow>> = HashMap::new();
    if !ids.is_empty() {
        for row in subtasks_query(&ids).build().fetch_all(connection).await? {
            subtasks.entry(row.try_get("task_id")?).or_default().push(row);
        }
    }
    let read = |row: &AnyRow| {
        let subtasks = subtasks.remove(&row.try_get("id")?).unwrap_or_default();
        Ok(read_task(row, &subtasks)?.0)
    };
    Ok((rows.iter().map(read).collect::<Result<_, StoreError>>()?, total))
}

pub(super) fn count_query(filter: &TaskFilter) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("SELECT COUNT(*) FROM tasks WHERE 1 = 1");
    push_filter(&mut query, filter);
    query
}

pub(super) fn page_query(filter: &TaskFilter, limit: i64, offset: i64) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("SELECT * FROM tasks WHERE 1 = 1");
    push_filter(&mut query, filter);
    query.push(if filter.ascending { " ORDER BY id" } else { " ORDER BY id DESC" });
    query.push(" LIMIT ").push_bind(limit).push(" OFFSET ").push_bind(offset);
    query
}

pub(super) fn subtasks_query(tasks: &[i64]) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("SELECT * FROM subtasks WHERE task_id");
    push_in(&mut query, tasks.iter().copied());
    query.push(" ORDER BY task_id, node");
    query
}

fn push_filter(query: &mut QueryBuilder<Any>, filter: &TaskFilter) {
    if let Some(name) = &filter.name {
        query.push(" AND name = ").push_bind(name.clone());
    }
    if let Some(host_id) = filter.host_id {
        query.push(" AND host_id = ").push_bind(host_id);
    }
    if let Some(cluster_id) = filter.cluster_id {
        query.push(" AND cluster_id = ").push_bind(cluster_id);
    }
    if !filter.statuses.is_empty() {
        query.push(" AND status IN (");
        let mut list = query.separated(", ");
        for status in &filter.statuses {
            list.push_bind(status.as_str());
        }
        query.push(")");
    }
}

/// A task that may still fetch a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageUser {
    pub id: TaskId,
    pub name: String,
    pub status: TaskStatus,
}

/// Tasks that name a package in their plan and are not SUCCESSFUL: one that is FAILED may be retried. At most `most`.
pub async fn users_of_package(
    connection: &mut AnyConnection,
    package: &PackageRef,
    most: i64,
) -> Result<Vec<PackageUser>, StoreError> {
    // As a value of the plan's JSON. Its text is looked at and not read, so that a damaged plan counts as well.
    let value = encode(package)?;
    let rows = sqlx::query(
        "SELECT id, name, status FROM tasks WHERE status IN (?, ?) AND INSTR(plan, ?) > 0 ORDER BY status, id LIMIT ?",
    )
    .bind(TaskStatus::Failed.as_str())
    .bind(TaskStatus::Running.as_str())
    .bind(value)
    .bind(most)
    .fetch_all(connection)
    .await?;
    let read = |row: &AnyRow| {
        let id: i64 = row.try_get("id")?;
        let status = parse(row, "status").map_err(|source| StoreError::Damaged { table: "tasks", id, source })?;
        Ok(PackageUser { id: TaskId(id), name: row.try_get("name")?, status })
    };
    rows.iter().map(read).collect()
}

pub async fn get(connection: &mut AnyConnection, id: TaskId) -> Result<Option<TaskRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM tasks WHERE id = ?").bind(id.0).fetch_optional(&mut *connection).await?;
    match row {
        Some(row) => Ok(Some(read_task(&row, &subtasks_of(connection, id).await?)?.0)),
        None => Ok(None),
    }
}

async fn subtasks_of(connection: &mut AnyConnection, id: TaskId) -> Result<Vec<AnyRow>, StoreError> {
    let rows = sqlx::query("SELECT * FROM subtasks WHERE task_id = ? ORDER BY node").bind(id.0);
    Ok(rows.fetch_all(connection).await?)
}

/// What can be read of a task, and what cannot: a damaged task stays visible.
fn read_task(row: &AnyRow, subtasks: &[AnyRow]) -> Result<(TaskRecord, Option<Cause>), StoreError> {
    let id: i64 = row.try_get("id")?;
    let mut record = TaskRecord {
        id: TaskId(id),
        plan: TaskPlan {
            name: row.try_get("name")?,
            host_id: row.try_get("host_id")?,
            obproxy_cluster_id: row.try_get("cluster_id")?,
            ..TaskPlan::default()
        },
        status: TaskStatus::Failed,
        operation: Operation::Execute,
        creator: row.try_get("creator")?,
        executor: row.try_get("executor")?,
        trace_id: row.try_get("trace_id")?,
        created_at: row.try_get("created_at")?,
        finished_at: row.try_get("finished_at")?,
        problem: row.try_get("problem")?,
        acknowledged: row.try_get::<i64, _>("acknowledged")? != 0,
        subtasks: Vec::new(),
    };
    let damage = record.fill(row, subtasks).err();
    if let Some(damage) = &damage {
        record.status = TaskStatus::Failed;
        record.problem.get_or_insert_with(|| format!("the rows of the task cannot be read: {damage}"));
    }
    Ok((record, damage))
}

impl TaskRecord {
    fn fill(&mut self, row: &AnyRow, subtasks: &[AnyRow]) -> Result<(), Cause> {
        self.status = parse(row, "status")?;
        self.operation = parse(row, "operation")?;
        self.plan = decode(&row.try_get::<String, _>("plan")?)?;
        self.subtasks = subtasks.iter().map(read_subtask).collect::<Result<_, _>>()?;
        Ok(())
    }
}

fn read_subtask(row: &AnyRow) -> Result<SubtaskRecord, StoreError> {
    let id: i64 = row.try_get("id")?;
    let damaged = |source| StoreError::Damaged { table: "subtasks", id, source };
    let failure: Option<String> = row.try_get("failure")?;
    Ok(SubtaskRecord {
        id,
        node: NodeIndex(u32::try_from(row.try_get::<i64, _>("node")?).map_err(|e| damaged(e.into()))?),
        status: parse(row, "status").map_err(damaged)?,
        operation: parse(row, "operation").map_err(damaged)?,
        run_time: u32::try_from(row.try_get::<i64, _>("run_time")?).map_err(|e| damaged(e.into()))?,
        started_at: row.try_get("started_at")?,
        finished_at: row.try_get("finished_at")?,
        failure: failure.map(|text| decode(&text)).transpose().map_err(damaged)?,
    })
}

/// Ids of the tasks that are under way, and of those that could not be taken up: a newer program may know how.
pub async fn unfinished(pool: &AnyPool) -> Result<Vec<TaskId>, StoreError> {
    // Two searches: an OR of the two would read every task there ever was. A problem makes a task FAILED.
    let running_or_unreadable = "SELECT id FROM tasks WHERE status = ? \
         UNION SELECT id FROM tasks WHERE status = ? AND problem IS NOT NULL ORDER BY id";
    let rows = sqlx::query(running_or_unreadable)
        .bind(TaskStatus::Running.as_str())
        .bind(TaskStatus::Failed.as_str())
        .fetch_all(pool)
        .await?;
    ids(&rows)
}

/// Tasks that are under way and that no newer coordinator than `epoch` has claimed.
pub async fn running(pool: &AnyPool, epoch: i64) -> Result<Vec<TaskId>, StoreError> {
    let rows = sqlx::query("SELECT id FROM tasks WHERE status = ? AND epoch <= ? ORDER BY id")
        .bind(TaskStatus::Running.as_str())
        .bind(epoch)
        .fetch_all(pool)
        .await?;
    ids(&rows)
}

/// Tasks at rest whose agents may not know that their outcomes are safe, oldest first.
pub async fn unacknowledged(pool: &AnyPool) -> Result<Vec<TaskId>, StoreError> {
    let rows =
        sqlx::query("SELECT id FROM tasks WHERE acknowledged = 0 AND status <> ? AND problem IS NULL ORDER BY id")
            .bind(TaskStatus::Running.as_str())
            .fetch_all(pool)
            .await?;
    ids(&rows)
}

fn ids(rows: &[AnyRow]) -> Result<Vec<TaskId>, StoreError> {
    rows.iter().map(|row| Ok(TaskId(row.try_get(0)?))).collect()
}

/// Takes a new epoch: whoever held an older one can append nothing to the tasks claimed with this one.
///
/// It is not below the seconds since 1970, so that a store that was restored from a backup does not begin with epochs
/// that agents have seen since, and refuse.
pub async fn next_epoch(store: &Store) -> Result<i64, StoreError> {
    let seconds = now_micros() / 1_000_000;
    let mut transaction = store.begin().await?;
    raise_epoch(&mut transaction, seconds - 1).await?;
    let epoch = allocate(&mut transaction, "epoch", 1).await?;
    transaction.commit().await?;
    Ok(epoch)
}

/// Lets the next epochs be above `seen`, and answers the lowest of them.
pub async fn raise_epoch(connection: &mut AnyConnection, seen: i64) -> Result<i64, StoreError> {
    let next = seen.saturating_add(1);
    sqlx::query("UPDATE sequences SET next_value = ? WHERE name = 'epoch' AND next_value < ?")
        .bind(next)
        .bind(next)
        .execute(connection)
        .await?;
    Ok(next)
}

/// Claims a task for `epoch`, unless a newer coordinator did.
pub async fn claim(connection: &mut AnyConnection, id: TaskId, epoch: i64) -> Result<(), AppendError> {
    let places = places(connection, [id]).await?;
    claim_all(connection, &[(id, epoch)], &places).await?.into_iter().collect()
}

/// The same for each of them.
pub async fn claim_all(
    connection: &mut AnyConnection,
    claims: &[(TaskId, i64)],
    places: &Places,
) -> Result<Vec<Result<(), AppendError>>, StoreError> {
    let held = |(id, _): &(TaskId, i64)| places.get(id).map_or(i64::MAX, |place| place.epoch);
    let mut new = BTreeMap::<i64, BTreeSet<i64>>::new();
    for claim in claims.iter().filter(|claim| held(claim) < claim.1) {
        new.entry(claim.1).or_default().insert(claim.0.0);
    }
    for (epoch, ids) in new {
        let ids: Vec<i64> = ids.into_iter().collect();
        for piece in pieces(&ids) {
            let done = claim_query(epoch, piece).build().execute(&mut *connection).await?;
            append_all::all_of(piece.len(), done.rows_affected())?;
        }
    }
    let answer =
        |claim: &(TaskId, i64)| if held(claim) <= claim.1 { Ok(()) } else { Err(AppendError::Fenced(claim.0)) };
    Ok(claims.iter().map(answer).collect())
}

pub(super) fn claim_query(epoch: i64, ids: &[i64]) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("UPDATE tasks SET epoch = ");
    query.push_bind(epoch).push(" WHERE epoch <= ").push_bind(epoch).push(" AND id");
    push_in(&mut query, ids.iter().copied());
    query
}

/// Whether a task is claimed with this very epoch.
pub async fn is_claimed(connection: &mut AnyConnection, id: TaskId, epoch: i64) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM tasks WHERE id = ? AND epoch = ?").bind(id.0).bind(epoch);
    Ok(row.fetch_optional(connection).await?.is_some())
}

/// Why events were not written.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another coordinator claimed the task, or the journal went on without this one. Never retried.
    #[error("task {0} belongs to another coordinator")]
    Fenced(TaskId),
    /// An operator released what the task had reserved, and another task has it.
    #[error("{0}")]
    Reserved(Holder),
    #[error("the events could not be written to the store")]
    Store(#[from] StoreError),
}

/// Notes that the task cannot be taken up, or that it can again. Then it reserves its objects anew, because an operator
/// may have released them. Whoever has lost the task is refused before anything is changed: what is refused is committed
/// together with its neighbours.
pub async fn set_problem(
    connection: &mut AnyConnection,
    id: TaskId,
    epoch: i64,
    problem: Option<&str>,
    status: TaskStatus,
) -> Result<(), AppendError> {
    if !is_claimed(connection, id, epoch).await? {
        return Err(AppendError::Fenced(id));
    }
    if problem.is_none()
        && let Some(record) = get(connection, id).await?
    {
        locks::retake(connection, id, &record.plan).await?.map_err(AppendError::Reserved)?;
    }
    sqlx::query("UPDATE tasks SET problem = ?, status = ? WHERE id = ?")
        .bind(problem)
        .bind(status.as_str())
        .bind(id.0)
        .execute(connection)
        .await
        .map_err(StoreError::from)?;
    Ok(())
}

/// Notes of each of these tasks that the agents know the outcomes of all events before a sequence number, if no others
/// have come since.
pub async fn set_acknowledged(connection: &mut AnyConnection, known: &[(TaskId, i64)]) -> Result<(), StoreError> {
    for piece in pieces(known) {
        acknowledged_query(piece).build().execute(&mut *connection).await?;
    }
    Ok(())
}

pub(super) fn acknowledged_query(known: &[(TaskId, i64)]) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("UPDATE tasks SET acknowledged = 1 WHERE ");
    for (index, (task, next_sequence)) in known.iter().enumerate() {
        query.push(if index == 0 { "(id = " } else { " OR (id = " }).push_bind(task.0);
        query.push(" AND next_sequence = ").push_bind(*next_sequence).push(")");
    }
    query
}
