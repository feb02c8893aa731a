//! How tasks come into being: those of one request together, in a number of statements that hardly grows with theirs.

use super::{SubtaskRecord, TaskId, TaskRecord};
use crate::{
    coordinator::store::{
        StoreError, allocate,
        columns::encode,
        locks::{self, Holder},
        now_micros, pieces,
    },
    graph::{NodeIndex, SubtaskState, TaskState},
    operations::TaskPlan,
};
use sqlx::{Any, AnyConnection, QueryBuilder};

/// Who asked for a task, and who runs it.
#[derive(Debug, Clone)]
pub struct Origin<'a> {
    pub creator: &'a str,
    pub executor: &'a str,
    pub trace_id: &'a str,
    /// Claim of the coordinator that creates the task.
    pub epoch: i64,
}

/// Why a task was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// An object that it needs is reserved by another task.
    #[error("{0}")]
    Reserved(Holder),
    #[error("the task could not be written to the store")]
    Store(#[from] StoreError),
}

/// A task that is to be: its plan, and the state in which it begins.
pub type NewTask<'a> = (&'a TaskPlan, &'a TaskState);

/// Creates tasks inside a transaction, so that they come into being together with the rows that they are about, and takes
/// their locks. After an error the caller rolls back.
pub async fn create(
    connection: &mut AnyConnection,
    tasks: &[NewTask<'_>],
    origin: &Origin<'_>,
) -> Result<Vec<TaskRecord>, CreateError> {
    let records = records(connection, tasks, origin).await?;
    insert(connection, &records, origin.epoch).await?;
    let locks = |record: &TaskRecord| record.plan.locks.iter().map(|lock| (record.id, *lock)).collect::<Vec<_>>();
    let wanted: Vec<_> = records.iter().flat_map(locks).collect();
    locks::take_first(connection, &wanted).await?.map_err(CreateError::Reserved)?;
    Ok(records)
}

/// Takes the ids for them.
async fn records(
    connection: &mut AnyConnection,
    tasks: &[NewTask<'_>],
    origin: &Origin<'_>,
) -> Result<Vec<TaskRecord>, StoreError> {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let id = allocate(connection, "task", count(tasks.len())).await?;
    let nodes = tasks.iter().map(|(plan, _)| plan.nodes.len()).sum();
    let mut subtask_ids = allocate(connection, "subtask", count(nodes)).await?..;
    let mut subtasks = |state: &TaskState| {
        let subtask = |((node, subtask), id): ((NodeIndex, &SubtaskState), i64)| SubtaskRecord {
            id,
            node,
            status: subtask.status,
            operation: subtask.operation,
            run_time: subtask.attempt,
            started_at: None,
            finished_at: None,
            failure: None,
        };
        state.subtasks().zip(subtask_ids.by_ref()).map(subtask).collect()
    };
    let created_at = now_micros();
    let record = |(id, (plan, state)): (i64, &NewTask<'_>)| TaskRecord {
        id: TaskId(id),
        plan: (*plan).clone(),
        status: state.status(),
        operation: state.operation(),
        creator: origin.creator.to_owned(),
        executor: origin.executor.to_owned(),
        trace_id: origin.trace_id.to_owned(),
        created_at,
        finished_at: None,
        problem: None,
        acknowledged: false,
        subtasks: subtasks(state),
    };
    Ok((id..).zip(tasks).map(record).collect())
}

async fn insert(connection: &mut AnyConnection, records: &[TaskRecord], epoch: i64) -> Result<(), StoreError> {
    let plans = records.iter().map(|record| encode(&record.plan)).collect::<Result<Vec<_>, _>>()?;
    let tasks: Vec<_> = records.iter().zip(plans).collect();
    for piece in pieces(&tasks) {
        let mut query = QueryBuilder::<Any>::new(
            "INSERT INTO tasks (id, name, status, operation, creator, executor, host_id, cluster_id, plan, epoch, \
             next_sequence, trace_id, created_at) ",
        );
        query.push_values(piece, |mut row, (record, plan)| {
            row.push_bind(record.id.0).push_bind(record.plan.name.clone());
            row.push_bind(record.status.as_str()).push_bind(record.operation.as_str());
            row.push_bind(record.creator.clone()).push_bind(record.executor.clone());
            row.push_bind(record.plan.host_id).push_bind(record.plan.obproxy_cluster_id).push_bind(plan.clone());
            row.push_bind(epoch).push_bind(1_i64).push_bind(record.trace_id.clone()).push_bind(record.created_at);
        });
        query.build().execute(&mut *connection).await?;
    }
    let subtasks = records.iter().flat_map(|record| record.subtasks.iter().map(|subtask| (record.id, subtask)));
    let subtasks: Vec<_> = subtasks.collect();
    for piece in pieces(&subtasks) {
        let mut query =
            QueryBuilder::<Any>::new("INSERT INTO subtasks (id, task_id, node, status, operation, run_time) ");
        query.push_values(piece, |mut row, (task, subtask)| {
            row.push_bind(subtask.id).push_bind(task.0).push_bind(i64::from(subtask.node.0));
            row.push_bind(subtask.status.as_str()).push_bind(subtask.operation.as_str());
            row.push_bind(i64::from(subtask.run_time));
        });
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}
