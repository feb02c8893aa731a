//! `/api/v2/tasks/instances`

pub(super) mod commands;
pub(super) mod locks;
pub(super) mod log_stream;
pub(super) mod stream;
pub(super) mod view;

use super::frame::{
    commit::commit_and,
    envelope::{Envelope, Page, Reply},
    error::ApiError,
    extract::{Params, PathOf},
    requester::Requester,
    state::ApiState,
};
use crate::{
    coordinator::store::{
        StoreError, host, obproxy,
        task::{self, CreateError, Origin, TaskFilter, TaskId, TaskRecord},
        user,
    },
    graph::{TaskState, TaskStatus},
    operations::TaskPlan,
};
use axum::extract::State;
use serde::Serialize;
use sqlx::{Any, AnyConnection, Transaction};
use std::collections::HashMap;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use view::{BasicTaskInstance, TaskInstance, UserName};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(log))
        .merge(commands::router())
        .merge(locks::router())
        .merge(stream::router())
        .merge(log_stream::router())
}

/// Makes a task in the caller's transaction. The caller commits with [`commit_and_wake`].
pub(super) async fn create(
    state: &ApiState,
    connection: &mut AnyConnection,
    plan: &TaskPlan,
    requester: &Requester,
) -> Result<TaskRecord, ApiError> {
    let made = create_all(state, connection, std::slice::from_ref(plan), requester).await?;
    made.into_iter().next().ok_or_else(|| ApiError::internal(&sqlx::Error::RowNotFound))
}

/// The same with the tasks of several plans, in their order.
pub(super) async fn create_all(
    state: &ApiState,
    connection: &mut AnyConnection,
    plans: &[TaskPlan],
    requester: &Requester,
) -> Result<Vec<TaskRecord>, ApiError> {
    let begin = |plan: &TaskPlan| plan.graph().map(TaskState::new).map_err(|error| ApiError::internal(&error));
    let states = plans.iter().map(begin).collect::<Result<Vec<_>, _>>()?;
    let tasks: Vec<_> = plans.iter().zip(&states).collect();
    let origin = Origin {
        creator: &requester.name,
        executor: &state.settings.address,
        trace_id: requester.trace.as_str(),
        epoch: state.engine().epoch(),
    };
    task::create(connection, &tasks, &origin).await.map_err(|error| match error {
        CreateError::Reserved(holder) => holder.into(),
        CreateError::Store(error) => error.into(),
    })
}

pub(super) fn absent(id: i64) -> ApiError {
    ApiError::not_found("TSK10001", format_args!("the task {id} does not exist"))
        .advise("see the tasks with: oblet task list")
}

pub(super) fn absent_subtask(id: i64, subtask_id: i64) -> ApiError {
    ApiError::not_found("TSK10001", format_args!("the task {id} has no subtask {subtask_id}"))
        .advise(format!("see its subtasks with: oblet task show {id}"))
}

/// Lists tasks, newest first.
#[utoipa::path(
    get, path = "/api/v2/tasks/instances", tag = "tasks", operation_id = "listTasks",
    params(
        ("name" = Option<String>, Query, description = "Full name of the task."),
        ("status" = inline(Option<Vec<TaskStatus>>), Query),
        ("type" = Option<String>, Query, description = "All tasks are MANUAL; any other type returns an empty list."),
        ("clusterId" = Option<i64>, Query, description = "Id of a proxy cluster."),
        ("cluterName" = Option<String>, Query, description = "Name of a proxy cluster. The correct spelling is accepted too."),
        ("tenantId" = Option<i64>, Query, description = "Tasks have no tenant; any value returns an empty list."),
        ("tenantName" = Option<String>, Query, description = "As tenantId."),
        ("hostId" = Option<i64>, Query),
        ("page" = Option<i64>, Query), ("size" = Option<i64>, Query), ("sort" = Option<String>, Query),
    ),
    responses((status = 200, description = "Done.", body = Envelope<Page<BasicTaskInstance>>)),
)]
async fn list(State(state): State<ApiState>, params: Params) -> Result<Reply<Page<BasicTaskInstance>>, ApiError> {
    let paging = params.paging()?;
    let mut filter = TaskFilter {
        name: params.text("name").map(ToOwned::to_owned),
        statuses: params.list("status")?,
        host_id: params.parsed("hostId")?,
        cluster_id: params.parsed("clusterId")?,
        ascending: !params.newest_first()?,
    };
    let nothing = || Ok(Reply(paging.page(Vec::new(), 0)));
    let of_tenant = ["tenantId", "tenantName"].iter().any(|name| params.text(name).is_some());
    if of_tenant || params.text("type").is_some_and(|kind| kind != "MANUAL") {
        return nothing();
    }
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    if let Some(name) = params.text("cluterName").or_else(|| params.text("clusterName")) {
        let Some(cluster) = obproxy::by_name(&mut connection, name).await? else { return nothing() };
        if filter.cluster_id.is_some_and(|id| id != cluster.id) {
            return nothing();
        }
        filter.cluster_id = Some(cluster.id);
    }
    let (records, total) = task::list(&mut connection, &filter, paging.size, paging.offset()).await?;
    let mut creators = HashMap::new();
    for record in &records {
        if !creators.contains_key(&record.creator) {
            creators.insert(record.creator.clone(), user_name(&mut connection, &record.creator).await?);
        }
    }
    let row = |record: &TaskRecord| {
        let creator = creators.get(&record.creator).cloned();
        let nameless = || UserName { id: None, name: record.creator.clone() };
        view::basic(record, creator.unwrap_or_else(nameless))
    };
    Ok(Reply(paging.page(records.iter().map(row).collect(), total)))
}

/// Returns a task with its subtasks.
#[utoipa::path(
    get, path = "/api/v2/tasks/instances/{id}", tag = "tasks", operation_id = "getTask",
    params(("id" = i64, Path)),
    responses((status = 200, description = "Done.", body = Envelope<TaskInstance>), (status = 404, description = "It does not exist.", body = super::frame::envelope::ErrorEnvelope)),
)]
async fn get(State(state): State<ApiState>, PathOf(id): PathOf<i64>) -> Result<Reply<TaskInstance>, ApiError> {
    Ok(Reply(read(&state, id).await?))
}

/// A task as it is at the moment.
pub(super) async fn read(state: &ApiState, id: i64) -> Result<TaskInstance, ApiError> {
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let record = task::get(&mut connection, TaskId(id)).await?.ok_or_else(|| absent(id))?;
    drop(connection);
    view(state, &record).await
}

/// A task as its record says.
pub(super) async fn view(state: &ApiState, record: &TaskRecord) -> Result<TaskInstance, ApiError> {
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let creator = user_name(&mut connection, &record.creator).await?;
    let addresses = host::addresses(&mut connection, record.plan.nodes.iter().filter_map(|node| node.host_id)).await?;
    let waits = state.engine().waits(record.id);
    Ok(view::wrapped(record, creator, &addresses, &waits))
}

async fn user_name(connection: &mut AnyConnection, name: &str) -> Result<UserName, StoreError> {
    let id = user::by_name(connection, name).await?.map(|user| user.id);
    Ok(UserName { id, name: name.to_owned() })
}

#[derive(Serialize, ToSchema)]
struct SubtaskLog {
    log: String,
}

/// Returns the log of all runs of a subtask.
#[utoipa::path(
    get, path = "/api/v2/tasks/instances/{id}/subtasks/{subtaskId}/log", tag = "tasks", operation_id = "getSubtaskLog",
    params(("id" = i64, Path), ("subtaskId" = i64, Path)),
    responses((status = 200, description = "Done.", body = Envelope<SubtaskLog>), (status = 404, description = "It does not exist.", body = super::frame::envelope::ErrorEnvelope)),
)]
async fn log(
    State(state): State<ApiState>,
    PathOf((id, subtask_id)): PathOf<(i64, i64)>,
) -> Result<Reply<SubtaskLog>, ApiError> {
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let log = task::log(&mut connection, TaskId(id), subtask_id).await?;
    Ok(Reply(SubtaskLog { log: log.ok_or_else(|| absent_subtask(id, subtask_id))? }))
}

/// Commits the transaction that made the tasks, and tells the engine of them.
pub(super) async fn commit_and_wake(
    state: &ApiState,
    transaction: Transaction<'static, Any>,
    records: &[TaskRecord],
) -> Result<(), ApiError> {
    let state = state.clone();
    let made: Vec<_> = records.iter().map(|record| (record.id, record.plan.name.clone())).collect();
    commit_and(transaction, async move {
        for (id, name) in made {
            tracing::info!(task_id = id.0, name, "task created");
            state.engine().wake(id);
        }
    })
    .await
}
