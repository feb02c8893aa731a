//! What an operator decides about a task: retry, roll back, skip, cancel. OCP's preconditions are the graph's own; a
//! decision that the present state does not allow is refused with that state, and nothing changes.

use super::{
    auth::Caller,
    envelope::{Envelope, ErrorEnvelope, NoData, Reply},
    error::{ApiError, code},
    extract::PathOf,
    state::ApiState,
    task_view::{SubtaskInstance, TaskInstance},
    tasks::{absent, absent_subtask, read},
};
use crate::{
    coordinator::{
        engine::CommandError,
        store::{
            StoreError,
            tasks::{self, LoadError, TaskId},
        },
    },
    graph::{Command, NodeIndex, Operation, Refusal, TaskStatus},
};
use axum::{Extension, extract::State, http::StatusCode};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(retry))
        .routes(routes!(rollback))
        .routes(routes!(retry_subtask))
        .routes(routes!(skip_subtask))
        .routes(routes!(cancel_subtask))
}

/// Undoes the failed subtasks of a task and runs them again.
#[utoipa::path(
    post, path = "/api/v2/tasks/instances/{id}/retry", tag = "tasks", operation_id = "retryTask",
    params(("id" = i64, Path)),
    responses(
        (status = 200, description = "Done.", body = Envelope<TaskInstance>), (status = 404, description = "There is no such thing.", body = ErrorEnvelope),
        (status = 409, description = "The task is not FAILED, or is being rolled back.", body = ErrorEnvelope),
    ),
)]
async fn retry(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    PathOf(id): PathOf<i64>,
) -> Result<Reply<TaskInstance>, ApiError> {
    command(&state, &caller, id, Command::Retry).await?;
    Ok(Reply(read(&state, id).await?))
}

/// Undoes all that a failed task has done, from its end to its beginning.
#[utoipa::path(
    post, path = "/api/v2/tasks/instances/{id}/rollback", tag = "tasks", operation_id = "rollBackTask",
    params(("id" = i64, Path)),
    responses(
        (status = 200, description = "Done.", body = Envelope<TaskInstance>), (status = 404, description = "There is no such thing.", body = ErrorEnvelope),
        (status = 409, description = "The task is not FAILED, or cannot be taken back.", body = ErrorEnvelope),
    ),
)]
async fn rollback(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    PathOf(id): PathOf<i64>,
) -> Result<Reply<TaskInstance>, ApiError> {
    command(&state, &caller, id, Command::Rollback).await?;
    Ok(Reply(read(&state, id).await?))
}

/// Undoes a failed subtask and runs it again.
#[utoipa::path(
    post, path = "/api/v2/tasks/instances/{id}/subtasks/{subtaskId}/retry", tag = "tasks", operation_id = "retrySubtask",
    params(("id" = i64, Path), ("subtaskId" = i64, Path)),
    responses(
        (status = 200, description = "Done.", body = Envelope<SubtaskInstance>), (status = 404, description = "There is no such thing.", body = ErrorEnvelope),
        (status = 409, description = "The subtask is not FAILED, or its task is being rolled back.", body = ErrorEnvelope),
    ),
)]
async fn retry_subtask(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    PathOf((id, subtask_id)): PathOf<(i64, i64)>,
) -> Result<Reply<SubtaskInstance>, ApiError> {
    let node = node(&state, id, subtask_id).await?;
    command(&state, &caller, id, Command::RetrySubtask(node)).await?;
    let subtask = read(&state, id).await?.into_subtask(subtask_id);
    Ok(Reply(subtask.ok_or_else(|| absent_subtask(id, subtask_id))?))
}

/// Takes a failed subtask as done; the task goes on.
#[utoipa::path(
    post, path = "/api/v2/tasks/instances/{id}/subtasks/{subtaskId}/skip", tag = "tasks", operation_id = "skipSubtask",
    params(("id" = i64, Path), ("subtaskId" = i64, Path)),
    responses(
        (status = 200, description = "No data."), (status = 404, description = "There is no such thing.", body = ErrorEnvelope),
        (status = 409, description = "The subtask is not FAILED.", body = ErrorEnvelope),
    ),
)]
async fn skip_subtask(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    PathOf((id, subtask_id)): PathOf<(i64, i64)>,
) -> Result<NoData, ApiError> {
    let node = node(&state, id, subtask_id).await?;
    command(&state, &caller, id, Command::SkipSubtask(node)).await?;
    Ok(NoData)
}

/// Ends the present run of a subtask, which fails by that.
#[utoipa::path(
    post, path = "/api/v2/tasks/instances/{id}/subtasks/{subtaskId}/cancel", tag = "tasks", operation_id = "cancelSubtask",
    params(("id" = i64, Path), ("subtaskId" = i64, Path)),
    responses(
        (status = 200, description = "No data."), (status = 404, description = "There is no such thing.", body = ErrorEnvelope),
        (status = 409, description = "The subtask is not RUNNING.", body = ErrorEnvelope),
    ),
)]
async fn cancel_subtask(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    PathOf((id, subtask_id)): PathOf<(i64, i64)>,
) -> Result<NoData, ApiError> {
    let node = node(&state, id, subtask_id).await?;
    command(&state, &caller, id, Command::CancelSubtask(node)).await?;
    Ok(NoData)
}

async fn node(state: &ApiState, id: i64, subtask_id: i64) -> Result<NodeIndex, ApiError> {
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let record = tasks::get(&mut connection, TaskId(id)).await?.ok_or_else(|| absent(id))?;
    let subtask = record.subtasks.iter().find(|subtask| subtask.id == subtask_id);
    Ok(subtask.ok_or_else(|| absent_subtask(id, subtask_id))?.node)
}

async fn command(state: &ApiState, caller: &Caller, id: i64, command: Command) -> Result<(), ApiError> {
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    // The engine would report a task that does not exist as one that needs an operator.
    tasks::get(&mut connection, TaskId(id)).await?.ok_or_else(|| absent(id))?;
    drop(connection);
    state.engine().command(TaskId(id), command, &caller.name).await.map_err(|error| refused(id, command, error))?;
    tracing::info!(task_id = id, ?command, by = caller.name, "decision carried out");
    Ok(())
}

fn refused(id: i64, command: Command, error: CommandError) -> ApiError {
    match error {
        CommandError::Refused(Refusal::NoSuchSubtask) | CommandError::Load(LoadError::Absent(_)) => absent(id),
        CommandError::Refused(refusal) => {
            let code = match (&refusal, command) {
                (Refusal::RollbackProhibited, _) => "TSK10009",
                (_, Command::SkipSubtask(_)) => "TSK10010",
                (_, Command::Retry | Command::Rollback | Command::Cancel) => "TSK10007",
                (_, Command::RetrySubtask(_) | Command::CancelSubtask(_)) => "TSK10016",
            };
            ApiError::conflict(code, format_args!("task {id}: {refusal}")).advise(next_move(&refusal))
        }
        CommandError::Load(error) => match error.problem() {
            Some(problem) => ApiError::conflict("TSK10007", format_args!("task {id} needs an operator: {problem}"))
                .advise("start the coordinator that wrote it, or roll back by hand and release its locks"),
            None => ApiError::internal(&error),
        },
        CommandError::Undriven => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code::UNKNOWN, error)
            .advise("nothing was changed; send the request again"),
        CommandError::ShuttingDown => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code::UNKNOWN, error)
            .advise("send the request again once it is back"),
    }
}

fn next_move(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::RetryState { operation: Operation::Rollback, status: TaskStatus::Failed } => {
            "roll the task back again, or skip the subtask that failed"
        }
        Refusal::RetryState { status: TaskStatus::Running, .. }
        | Refusal::RollbackState { status: TaskStatus::Running, .. } => "wait until the task has come to rest",
        Refusal::CancelState { .. } => "nothing runs that could be canceled",
        Refusal::RetryState { .. } | Refusal::RollbackState { .. } => {
            "the task is over; what is left to do takes another"
        }
        Refusal::RollbackProhibited => "retry the task, or skip the subtask that failed",
        Refusal::NoSuchSubtask | Refusal::SubtaskState { .. } => {
            "look at the task: its state may have changed since you read it"
        }
    }
}
