//! Gives free what a task has reserved and will not need any more, because nobody will take it up again.

use super::absent;
use crate::{
    api::frame::{
        envelope::{Contents, Envelope, ErrorEnvelope, Reply},
        error::ApiError,
        extract::PathOf,
        query::DryRun,
        requester::Requester,
        state::ApiState,
    },
    coordinator::store::{
        StoreError, locks,
        task::{self, TaskId},
    },
    graph::TaskStatus,
};
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(in crate::api) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(release))
}

#[derive(Serialize, ToSchema)]
struct ReleasedObject {
    /// The object, such as `host 2`.
    object: String,
}

/// Releases the objects that a task has reserved and that it does not use at the moment. What it left on them stays. A later
/// decision about the task reserves them again first.
#[utoipa::path(
    post, path = "/api/v2/tasks/instances/{id}/releaseLocks", tag = "tasks", operation_id = "releaseTaskLocks",
    params(("id" = i64, Path), DryRun),
    responses(
        (status = 200, description = "Done.", body = Envelope<Contents<ReleasedObject>>), (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 409, description = "The task is RUNNING, or it has no reservations.", body = ErrorEnvelope),
    ),
)]
async fn release(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf(id): PathOf<i64>,
    DryRun(dry_run): DryRun,
) -> Result<Reply<Contents<ReleasedObject>>, ApiError> {
    let mut transaction = state.store().begin().await?;
    // Before the look at the task, which may be about to run again and to take them.
    locks::wait_for_turn(&mut transaction).await?;
    let task = task::get(&mut transaction, TaskId(id)).await?.ok_or_else(|| absent(id))?;
    if task.status == TaskStatus::Running && task.problem.is_none() {
        let text =
            format_args!("task {id} is {} {}; a running task keeps its reservations", task.operation, task.status);
        return Err(ApiError::conflict("TSK10007", text).advise("cancel the task, and wait until it has ended"));
    }
    let locks = locks::release(&mut transaction, TaskId(id)).await?;
    if locks.is_empty() {
        let text = format_args!("task {id} is {} {} and has reserved nothing", task.operation, task.status);
        return Err(ApiError::conflict("TSK10007", text).advise("nothing to do: the task does not block other tasks"));
    }
    let objects: Vec<String> = locks.iter().map(ToString::to_string).collect();
    requester.audit(&mut transaction, "task.releaseLocks", &format!("task {id}"), &objects.join(", ")).await?;
    if dry_run {
        transaction.rollback().await.map_err(StoreError::from)?;
    } else {
        transaction.commit().await.map_err(StoreError::from)?;
        tracing::warn!(task_id = id, by = requester.name, ?objects, "locks released by force");
    }
    Ok(Reply(Contents { contents: objects.into_iter().map(|object| ReleasedObject { object }).collect() }))
}
