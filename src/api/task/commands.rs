//! What an operator decides about a task: retry, roll back, skip, cancel. OCP's preconditions are the graph's own; a
//! decision that the present state does not allow is refused with that state, and nothing changes.

use super::{
    absent, absent_subtask, read, view,
    view::{SubtaskInstance, TaskInstance},
};
use crate::{
    api::frame::{
        commit::commit_and,
        envelope::{Envelope, ErrorEnvelope, NoData, Reply},
        error::ApiError,
        extract::PathOf,
        query::DryRun,
        requester::Requester,
        state::ApiState,
    },
    coordinator::{
        engine::CommandError,
        store::{
            StoreError, locks,
            task::{self, LoadError, LoadedTask, TaskId, TaskRecord},
        },
    },
    graph::{Command, NodeIndex, Operation, Refusal, TaskState, TaskStatus},
    telemetry::chain,
};
use axum::{
    extract::FromRequestParts,
    http::request::Parts,
    response::{IntoResponse as _, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(retry))
        .routes(routes!(rollback))
        .routes(routes!(cancel))
        .routes(routes!(retry_subtask))
        .routes(routes!(skip_subtask))
        .routes(routes!(cancel_subtask))
}

/// Undoes the failed subtasks of a task, then runs them again.
#[utoipa::path(
    post, path = "/api/v2/tasks/instances/{id}/retry", tag = "tasks", operation_id = "retryTask",
    params(("id" = i64, Path), DryRun),
    responses(
        (status = 200, description = "Done.", body = Envelope<TaskInstance>), (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 409, description = "The task is not FAILED, or is being rolled back.", body = ErrorEnvelope),
    ),
)]
async fn retry(decision: Decision, PathOf(id): PathOf<i64>) -> Result<Reply<TaskInstance>, ApiError> {
    decision.of_task(id, Command::Retry).await.map(Reply)
}

/// Rolls a failed task back: undoes its subtasks in reverse order.
#[utoipa::path(
    post, path = "/api/v2/tasks/instances/{id}/rollback", tag = "tasks", operation_id = "rollBackTask",
    params(("id" = i64, Path), DryRun),
    responses(
        (status = 200, description = "Done.", body = Envelope<TaskInstance>), (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 409, description = "The task is not FAILED, or cannot be rolled back.", body = ErrorEnvelope),
    ),
)]
async fn rollback(decision: Decision, PathOf(id): PathOf<i64>) -> Result<Reply<TaskInstance>, ApiError> {
    decision.of_task(id, Command::Rollback).await.map(Reply)
}

/// Cancels a task: ends its running subtasks and starts no others. The task becomes FAILED.
#[utoipa::path(
    post, path = "/api/v2/tasks/instances/{id}/cancel", tag = "tasks", operation_id = "cancelTask",
    params(("id" = i64, Path), DryRun),
    responses(
        (status = 200, description = "Done.", body = Envelope<TaskInstance>), (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 409, description = "The task is not RUNNING, or is being canceled already.", body = ErrorEnvelope),
    ),
)]
async fn cancel(decision: Decision, PathOf(id): PathOf<i64>) -> Result<Reply<TaskInstance>, ApiError> {
    decision.of_task(id, Command::Cancel).await.map(Reply)
}

/// Undoes a failed subtask, then runs it again.
#[utoipa::path(
    post, path = "/api/v2/tasks/instances/{id}/subtasks/{subtaskId}/retry", tag = "tasks", operation_id = "retrySubtask",
    params(("id" = i64, Path), ("subtaskId" = i64, Path), DryRun),
    responses(
        (status = 200, description = "Done.", body = Envelope<SubtaskInstance>), (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 409, description = "The subtask is not FAILED, or its task is being rolled back.", body = ErrorEnvelope),
    ),
)]
async fn retry_subtask(
    decision: Decision,
    PathOf(ids): PathOf<(i64, i64)>,
) -> Result<Reply<SubtaskInstance>, ApiError> {
    decision.of_subtask(ids, Command::RetrySubtask).await.map(Reply)
}

/// Marks a failed subtask as done without running it, and continues the task.
#[utoipa::path(
    post, path = "/api/v2/tasks/instances/{id}/subtasks/{subtaskId}/skip", tag = "tasks", operation_id = "skipSubtask",
    params(("id" = i64, Path), ("subtaskId" = i64, Path), DryRun),
    responses(
        (status = 200, description = "No data; in a dry run, the subtask.", body = Envelope<SubtaskInstance>), (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 409, description = "The subtask is not FAILED.", body = ErrorEnvelope),
    ),
)]
async fn skip_subtask(decision: Decision, PathOf(ids): PathOf<(i64, i64)>) -> Result<Response, ApiError> {
    decision.quietly(ids, Command::SkipSubtask).await
}

/// Cancels the current run of a subtask. The subtask becomes FAILED.
#[utoipa::path(
    post, path = "/api/v2/tasks/instances/{id}/subtasks/{subtaskId}/cancel", tag = "tasks", operation_id = "cancelSubtask",
    params(("id" = i64, Path), ("subtaskId" = i64, Path), DryRun),
    responses(
        (status = 200, description = "No data; in a dry run, the subtask.", body = Envelope<SubtaskInstance>), (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 409, description = "The subtask is not RUNNING.", body = ErrorEnvelope),
    ),
)]
async fn cancel_subtask(decision: Decision, PathOf(ids): PathOf<(i64, i64)>) -> Result<Response, ApiError> {
    decision.quietly(ids, Command::CancelSubtask).await
}

/// A decision before it is said about what.
struct Decision {
    state: ApiState,
    requester: Requester,
    dry_run: bool,
}

impl FromRequestParts<ApiState> for Decision {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let DryRun(dry_run) = DryRun::from_request_parts(parts, state).await?;
        let requester = Requester::from_request_parts(parts, state).await?;
        Ok(Self { state: state.clone(), requester, dry_run })
    }
}

impl Decision {
    async fn of_task(self, id: i64, command: Command) -> Result<TaskInstance, ApiError> {
        let task = self.load(id).await?;
        self.carry_out(task, command, &format!("task {id}")).await
    }

    async fn of_subtask(
        self,
        (id, subtask_id): (i64, i64),
        command: fn(NodeIndex) -> Command,
    ) -> Result<SubtaskInstance, ApiError> {
        let task = self.load(id).await?;
        let absent = || absent_subtask(id, subtask_id);
        let row = task.record.subtasks.iter().find(|subtask| subtask.id == subtask_id).ok_or_else(absent)?;
        let command = command(row.node);
        let task = self.carry_out(task, command, &format!("subtask {subtask_id} of task {id}")).await?;
        task.into_subtask(subtask_id).ok_or_else(absent)
    }

    /// For decisions to which OCP answers no data. A dry run has something to tell all the same.
    async fn quietly(self, ids: (i64, i64), command: fn(NodeIndex) -> Command) -> Result<Response, ApiError> {
        let dry_run = self.dry_run;
        let subtask = self.of_subtask(ids, command).await?;
        Ok(if dry_run { Reply(subtask).into_response() } else { NoData.into_response() })
    }

    async fn load(&self, id: i64) -> Result<LoadedTask, ApiError> {
        let mut connection = self.state.store().readers().acquire().await.map_err(StoreError::from)?;
        task::load(&mut connection, TaskId(id)).await.map_err(|error| unloadable(id, error))
    }

    async fn carry_out(self, task: LoadedTask, command: Command, object: &str) -> Result<TaskInstance, ApiError> {
        let Self { state, requester, dry_run } = self;
        let LoadedTask { record, state: mut after, .. } = task;
        let id = record.id;
        let event = after.decide(command, &requester.name).map_err(|refusal| refused(id.0, command, &refusal))?;
        after.apply(&event).map_err(|error| ApiError::internal(&error))?;

        let mut transaction = state.store().begin().await?;
        // Whatever is found here, the task takes its locks only with the event by which it runs again: a decision that is
        // refused, because another coordinator has the task, leaves what was released as it is.
        if makes_run(command)
            && let Some(holder) = locks::obstacle(&mut transaction, id, &record.plan).await?
        {
            return Err(holder.into());
        }
        if dry_run {
            transaction.rollback().await.map_err(StoreError::from)?;
            return view(&state, &stands(record, &after)).await;
        }
        // Before the decision, so that there is none of which nobody knows who made it.
        requester.audit(&mut transaction, action(command), object, &record.plan.name).await?;
        let (deciding, by) = (state.clone(), requester.name.clone());
        let carried_out =
            commit_and(transaction, async move { deciding.engine().command(id, command, &by).await }).await?;
        carried_out.map_err(|error| match error {
            CommandError::Refused(refusal) => refused(id.0, command, &refusal),
            CommandError::Reserved(holder) => holder.into(),
            CommandError::Load(error) => unloadable(id.0, error),
            CommandError::Undriven => ApiError::try_later(error).advise("nothing was changed; send the request again"),
            CommandError::ShuttingDown => ApiError::try_later(error).advise("send the request again once it is back"),
        })?;
        tracing::info!(task_id = id.0, ?command, by = requester.name, "decision carried out");
        read(&state, id.0).await
    }
}

/// The record as its rows would be after events that led to `state`.
fn stands(mut record: TaskRecord, state: &TaskState) -> TaskRecord {
    record.status = state.status();
    record.operation = state.operation();
    record.finished_at = record.finished_at.filter(|_| record.status != TaskStatus::Running);
    for (row, (_, subtask)) in record.subtasks.iter_mut().zip(state.subtasks()) {
        row.status = subtask.status;
        row.operation = subtask.operation;
        row.run_time = subtask.attempt;
        row.failure.clone_from(&subtask.failure);
    }
    record
}

/// Whether something begins by it that had come to rest.
fn makes_run(command: Command) -> bool {
    match command {
        Command::Retry | Command::Rollback | Command::RetrySubtask(_) | Command::SkipSubtask(_) => true,
        Command::Cancel | Command::CancelSubtask(_) => false,
    }
}

fn action(command: Command) -> &'static str {
    match command {
        Command::Retry => "task.retry",
        Command::Rollback => "task.rollback",
        Command::Cancel => "task.cancel",
        Command::RetrySubtask(_) => "subtask.retry",
        Command::SkipSubtask(_) => "subtask.skip",
        Command::CancelSubtask(_) => "subtask.cancel",
    }
}

fn unloadable(id: i64, error: LoadError) -> ApiError {
    match error {
        LoadError::Absent(_) => absent(id),
        LoadError::Store(error) => error.into(),
        LoadError::Superseded(_) => ApiError::try_later(format_args!("task {id} is driven by another coordinator"))
            .advise("send the request to the coordinator that the task names as its executor"),
        LoadError::Record(_) | LoadError::Graph(_) | LoadError::Event { .. } | LoadError::Illegal { .. } => {
            ApiError::conflict("TSK10007", format_args!("task {id} needs an operator: {}", chain(&error))).advise(format!(
                "start the coordinator that wrote it, or take back by hand what it did, then release what it has with: \
                 oblet task unlock {id}"
            ))
        }
    }
}

fn refused(id: i64, command: Command, refusal: &Refusal) -> ApiError {
    let code = match (refusal, command) {
        (Refusal::NoSuchSubtask, _) => return absent(id),
        (Refusal::RollbackProhibited, _) => "TSK10009",
        (_, Command::SkipSubtask(_)) => "TSK10010",
        (_, Command::Retry | Command::Rollback | Command::Cancel) => "TSK10007",
        (_, Command::RetrySubtask(_) | Command::CancelSubtask(_)) => "TSK10016",
    };
    ApiError::conflict(code, format_args!("task {id}: {refusal}")).advise(next_move(refusal))
}

fn next_move(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::RetryState { operation: Operation::Rollback, status: TaskStatus::Failed } => {
            "roll the task back again, or skip the subtask that failed"
        }
        Refusal::RetryState { status: TaskStatus::Running, .. }
        | Refusal::RollbackState { status: TaskStatus::Running, .. } => "wait until the task has ended",
        Refusal::CancelState { .. } => "nothing runs that could be canceled",
        Refusal::RetryState { .. } | Refusal::RollbackState { .. } => "the task is finished; start a new one",
        Refusal::RollbackProhibited => "retry the task, or skip the subtask that failed",
        Refusal::NoSuchSubtask | Refusal::SubtaskState { .. } => {
            "look at the task: its state may have changed since you read it"
        }
    }
}
