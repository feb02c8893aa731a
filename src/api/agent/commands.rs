//! Restarting and stopping agents: tasks of one host or several, and the calls of OCP that wait for their end.

use super::HostAgentProcess;
use crate::{
    api::{
        agent,
        frame::{
            envelope::{Envelope, ErrorEnvelope, Reply},
            error::{ApiError, code},
            extract::PathOf,
            once::{Keyed, Once},
            query::DryRun,
            requester::Requester,
            state::ApiState,
        },
        host::absent,
        task::{
            self,
            view::{self, TaskInstance},
        },
    },
    coordinator::store::{
        StoreError, host,
        task::{self as rows, TaskRecord},
    },
    graph::TaskStatus,
    operations::operate_agents,
    steps::AgentOperation,
};
use axum::{extract::State, http::StatusCode};
use serde::Deserialize;
use sqlx::{Any, AnyConnection, Transaction};
use std::{collections::HashSet, time::Duration};
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(in crate::api) fn router() -> OpenApiRouter<ApiState> {
    use axum::routing::post;
    OpenApiRouter::new()
        .routes(routes!(restart))
        .routes(routes!(stop))
        .routes(routes!(batch_restart))
        .routes(routes!(batch_stop))
        .routes(routes!(restart_process))
        .routes(routes!(stop_process))
        // As OCP's documentation names them.
        .route("/compute/hosts/{id}/agent/restart", post(restart))
        .route("/compute/hosts/{id}/agent/stop", post(stop))
        .route("/compute/hosts/batchRestartAgents", post(batch_restart))
        .route("/compute/hosts/batchStopAgents", post(batch_stop))
        .route("/compute/hosts/{id}/agent/processes/{process_id}/restart", post(restart_process))
        .route("/compute/hosts/{id}/agent/processes/{process_id}/stop", post(stop_process))
}

const MAX_HOSTS: usize = 200;
/// Leaves a request the time to say that the task goes on.
const PATIENCE: Duration = Duration::from_secs(50);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Hosts whose agents are restarted or stopped.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Agents {
    /// At most 200.
    #[schema(min_items = 1, max_items = 200)]
    host_ids: Vec<i64>,
    /// OCP's name for the header `Idempotency-Key`: 8 to 64 characters.
    #[serde(rename = "clientToken")]
    #[schema(min_length = 8, max_length = 64)]
    _client_token: Option<String>,
}

/// Refuses no hosts, hosts that are named twice and hosts that do not exist.
pub(super) async fn check_hosts(connection: &mut AnyConnection, ids: &[i64]) -> Result<(), ApiError> {
    if ids.is_empty() || ids.len() > MAX_HOSTS {
        return Err(ApiError::invalid("hostIds", format_args!("1 to {MAX_HOSTS} hosts are named at a time")));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = ids.iter().find(|id| !seen.insert(**id)) {
        return Err(ApiError::invalid("hostIds", format_args!("the host {twice} is named twice")));
    }
    for id in ids {
        host::get(connection, *id).await?.ok_or_else(|| absent(*id))?;
    }
    Ok(())
}

/// Makes the task for hosts that exist. The caller commits, which wakes it.
async fn make(
    state: &ApiState,
    connection: &mut AnyConnection,
    requester: &Requester,
    operation: AgentOperation,
    ids: &[i64],
) -> Result<TaskRecord, ApiError> {
    check_hosts(connection, ids).await?;
    let record = task::create(state, connection, &operate_agents(operation, ids), requester).await?;
    let action = match operation {
        AgentOperation::Restart => "agent.restart",
        AgentOperation::Stop => "agent.stop",
    };
    for id in ids {
        requester.audit(connection, action, &format!("host {id}"), &format!("by task {}", record.id)).await?;
    }
    Ok(record)
}

async fn begin(
    state: &ApiState,
    requester: &Requester,
    DryRun(dry_run): DryRun,
    operation: AgentOperation,
    Keyed { body, once }: Keyed<Agents>,
) -> Result<Reply<TaskInstance>, ApiError> {
    let mut transaction = state.store().begin().await?;
    if !dry_run && let Some(answer) = answered(state, &mut transaction, &once).await? {
        return Ok(answer);
    }
    let record = make(state, &mut transaction, requester, operation, &body.host_ids).await?;
    conclude(state, transaction, &once, DryRun(dry_run), &record).await
}

/// What a request that was sent before is answered again.
pub(super) async fn answered(
    state: &ApiState,
    connection: &mut AnyConnection,
    once: &Once,
) -> Result<Option<Reply<TaskInstance>>, ApiError> {
    let Some(made) = once.made(state, connection).await? else { return Ok(None) };
    let made = made.into_iter().next().ok_or_else(|| ApiError::internal(&sqlx::Error::RowNotFound))?;
    Ok(Some(Reply(view::again(made)?)))
}

/// The end of a request with a key, which is remembered with the task.
pub(super) async fn conclude(
    state: &ApiState,
    mut transaction: Transaction<'static, Any>,
    once: &Once,
    dry_run: DryRun,
    record: &TaskRecord,
) -> Result<Reply<TaskInstance>, ApiError> {
    once.remember(&mut transaction, std::slice::from_ref(record)).await?;
    end(state, transaction, dry_run, record).await
}

/// Commits the task and wakes it, or takes everything back.
async fn end(
    state: &ApiState,
    transaction: Transaction<'static, Any>,
    DryRun(dry_run): DryRun,
    record: &TaskRecord,
) -> Result<Reply<TaskInstance>, ApiError> {
    if dry_run {
        transaction.rollback().await.map_err(StoreError::from)?;
        return Ok(Reply(view::planned(record)));
    }
    task::commit_and_wake(state, transaction, std::slice::from_ref(record)).await?;
    Ok(Reply(view::created(record)))
}

/// The same for one host, by a request that has no key.
async fn begin_one(
    state: &ApiState,
    requester: &Requester,
    dry_run: DryRun,
    operation: AgentOperation,
    id: i64,
) -> Result<(TaskRecord, Reply<TaskInstance>), ApiError> {
    let mut transaction = state.store().begin().await?;
    let record = make(state, &mut transaction, requester, operation, &[id]).await?;
    let reply = end(state, transaction, dry_run, &record).await?;
    Ok((record, reply))
}

/// Restarts the agent of a host. Services on the host keep running.
#[utoipa::path(
    post, path = "/api/v2/compute/hosts/{id}/agent/restart", tag = "agents", operation_id = "restartHostAgent",
    params(("id" = i64, Path), DryRun),
    responses((status = 200, description = "Done.", body = Envelope<TaskInstance>), (status = 404, description = "It does not exist.", body = ErrorEnvelope)),
)]
async fn restart(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf(id): PathOf<i64>,
    dry_run: DryRun,
) -> Result<Reply<TaskInstance>, ApiError> {
    let (_, reply) = begin_one(&state, &requester, dry_run, AgentOperation::Restart, id).await?;
    Ok(reply)
}

/// Stops the agent of a host. Only an administrator of the host can start it again.
#[utoipa::path(
    post, path = "/api/v2/compute/hosts/{id}/agent/stop", tag = "agents", operation_id = "stopHostAgent",
    params(("id" = i64, Path), DryRun),
    responses(
        (status = 200, description = "Done.", body = Envelope<TaskInstance>), (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 409, description = "A task has reserved the host.", body = ErrorEnvelope),
    ),
)]
async fn stop(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf(id): PathOf<i64>,
    dry_run: DryRun,
) -> Result<Reply<TaskInstance>, ApiError> {
    let (_, reply) = begin_one(&state, &requester, dry_run, AgentOperation::Stop, id).await?;
    Ok(reply)
}

/// Restarts the agents of hosts after checking that all of them respond.
#[utoipa::path(
    post, path = "/api/v2/compute/hosts/batchRestartAgents", tag = "agents", operation_id = "restartHostAgents",
    params(DryRun, ("Idempotency-Key" = Option<String>, Header, description = "If the request is repeated with the same key, it returns the same task.")),
    request_body = Agents,
    responses((status = 200, description = "Done.", body = Envelope<TaskInstance>), (status = 404, description = "A host does not exist.", body = ErrorEnvelope)),
)]
async fn batch_restart(
    State(state): State<ApiState>,
    requester: Requester,
    dry_run: DryRun,
    request: Keyed<Agents>,
) -> Result<Reply<TaskInstance>, ApiError> {
    begin(&state, &requester, dry_run, AgentOperation::Restart, request).await
}

/// Stops the agents of hosts after checking that all of them respond.
#[utoipa::path(
    post, path = "/api/v2/compute/hosts/batchStopAgents", tag = "agents", operation_id = "stopHostAgents",
    params(DryRun, ("Idempotency-Key" = Option<String>, Header, description = "If the request is repeated with the same key, it returns the same task.")),
    request_body = Agents,
    responses(
        (status = 200, description = "Done.", body = Envelope<TaskInstance>), (status = 404, description = "A host does not exist.", body = ErrorEnvelope),
        (status = 409, description = "A task has reserved a host.", body = ErrorEnvelope),
    ),
)]
async fn batch_stop(
    State(state): State<ApiState>,
    requester: Requester,
    dry_run: DryRun,
    request: Keyed<Agents>,
) -> Result<Reply<TaskInstance>, ApiError> {
    begin(&state, &requester, dry_run, AgentOperation::Stop, request).await
}

/// Restarts a process of an agent and waits for the result.
#[utoipa::path(
    post, path = "/api/v2/compute/hosts/{id}/agent/processes/{process_id}/restart", tag = "agents", operation_id = "restartHostAgentProcess",
    params(("id" = i64, Path), ("process_id" = i64, Path), DryRun),
    responses(
        (status = 200, description = "Done.", body = Envelope<HostAgentProcess>), (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 502, description = "The task failed.", body = ErrorEnvelope), (status = 504, description = "The task is still running.", body = ErrorEnvelope),
    ),
)]
async fn restart_process(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf((id, process)): PathOf<(i64, i64)>,
    dry_run: DryRun,
) -> Result<Reply<HostAgentProcess>, ApiError> {
    agent::check_process(id, process)?;
    let (record, _) = begin_one(&state, &requester, dry_run, AgentOperation::Restart, id).await?;
    wait(&state, &record, dry_run).await?;
    agent::process_of(&state, id).await.map(Reply)
}

/// Stops a process of an agent and waits for the result.
#[utoipa::path(
    post, path = "/api/v2/compute/hosts/{id}/agent/processes/{process_id}/stop", tag = "agents", operation_id = "stopHostAgentProcess",
    params(("id" = i64, Path), ("process_id" = i64, Path), DryRun),
    responses(
        (status = 200, description = "Done.", body = Envelope<HostAgentProcess>), (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 409, description = "A task has reserved the host.", body = ErrorEnvelope),
        (status = 502, description = "The task failed, or the agent does not answer.", body = ErrorEnvelope), (status = 504, description = "The task is still running.", body = ErrorEnvelope),
    ),
)]
async fn stop_process(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf((id, process)): PathOf<(i64, i64)>,
    dry_run: DryRun,
) -> Result<Reply<HostAgentProcess>, ApiError> {
    agent::check_process(id, process)?;
    // Afterwards nobody can be asked.
    let process = agent::process_of(&state, id).await?;
    let (record, _) = begin_one(&state, &requester, dry_run, AgentOperation::Stop, id).await?;
    wait(&state, &record, dry_run).await?;
    Ok(Reply(process.stopped()))
}

/// Waits until the task is SUCCESSFUL. A task that was only planned is not waited for.
async fn wait(state: &ApiState, record: &TaskRecord, DryRun(dry_run): DryRun) -> Result<(), ApiError> {
    if dry_run {
        return Ok(());
    }
    let id = record.id;
    let deadline = Instant::now() + PATIENCE;
    // Taken before the first look, so that no commit after it is missed.
    let mut commits = state.engine().commits();
    while Instant::now() < deadline {
        let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
        let task = rows::get(&mut connection, id).await?.ok_or_else(|| task::absent(id.0))?;
        drop(connection);
        match task.status {
            TaskStatus::Successful => return Ok(()),
            TaskStatus::Failed => return Err(failed(&task)),
            // Another coordinator may write it, of which this one is not told.
            TaskStatus::Running => {
                let _ = timeout_at(deadline.min(Instant::now() + LOOK_EVERY), commits.changed()).await;
            }
        }
    }
    let text = format_args!("task {id}, {}, still runs after {} s", record.plan.name, PATIENCE.as_secs());
    Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, code::TIMED_OUT, text)
        .advise(format!("follow it with: oblet task watch {id}")))
}

fn failed(task: &TaskRecord) -> ApiError {
    let failure = task.subtasks.iter().find_map(|subtask| subtask.failure.as_ref());
    let why = failure.map_or("it was canceled", |failure| failure.message.as_str());
    let advice = failure.map(|failure| format!("{}; ", failure.next_move)).unwrap_or_default();
    ApiError::new(
        StatusCode::BAD_GATEWAY,
        code::UNKNOWN,
        format_args!("task {}, {}, failed: {why}", task.id, task.plan.name),
    )
    .advise(format!("{advice}see it with: oblet task show {}", task.id))
}
