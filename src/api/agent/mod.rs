//! `/api/v2/compute/hosts/{id}/agent`: the agent of a host. OCP's documentation names these calls without their prefix
//! `/api/v2`; they are served under both names.
//!
//! OCP's agent is several processes; this one is a single one, so its process has the id 1.

pub(super) mod commands;
pub(super) mod enroll;
pub(super) mod enrolment_tokens;
pub(super) mod epoch;
pub(super) mod trust;
pub(super) mod upgrade;

use super::{
    frame::{
        envelope::{Envelope, ErrorEnvelope, Page, Reply, ocp_time},
        error::ApiError,
        extract::{Params, PathOf},
        state::{ApiState, Silence},
        words::{AgentStatus, ProcessStatus},
    },
    host::absent,
};
use crate::{
    coordinator::store::{
        StoreError,
        host::{self, Host},
        now_micros,
    },
    rpc::v1::{AgentProcess, DescribeHostResponse},
};
use axum::{extract::State, http::StatusCode, routing};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(get))
        .routes(routes!(list_processes))
        // As OCP's documentation names them.
        .route("/compute/hosts/{id}/agent", routing::get(get))
        .route("/compute/hosts/{id}/agent/processes", routing::get(list_processes))
        .merge(commands::router())
        .merge(upgrade::router())
        .merge(epoch::router())
        .merge(trust::router())
        .merge(enrolment_tokens::router())
}

/// What a host asks before it has a certificate.
pub(super) fn public_router() -> OpenApiRouter<ApiState> {
    enroll::router()
}

const PROCESS_ID: i64 = 1;
const NAME: &str = "oblet-agent";
const STARTED: &str = "STARTED";
const STOPPED: &str = "STOPPED";
const UNREACHABLE: &str = "UNREACHABLE";

/// The agent of a host.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HostAgent {
    /// The same as `hostId`, because a host has one agent.
    id: i64,
    host_id: i64,
    host_inner_ip_address: String,
    version: String,
    /// STARTED if it answers, STOPPED if its host says that nothing listens on its port, else UNREACHABLE: it hangs, or
    /// the host or the network is down.
    #[schema(value_type = AgentStatus)]
    status: &'static str,
    /// Why the agent does not respond. Not part of OCP's responses.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    install_home: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_home: Option<String>,
    /// Omitted if the agent does not respond.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_available_time: Option<String>,
    processes: Vec<HostAgentProcess>,
}

/// A process of an agent.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct HostAgentProcess {
    id: i64,
    alias: &'static str,
    pid: i32,
    user: String,
    start_command: String,
    ports: Vec<u32>,
    /// Seconds since the process started.
    elapsed_time: i64,
    last_active_time: String,
    /// STARTED or STOPPED.
    #[schema(value_type = ProcessStatus)]
    status: &'static str,
    /// Whether the process can be restarted and stopped.
    operable: bool,
    log_file_pattern: String,
}

fn process(process: AgentProcess) -> HostAgentProcess {
    let now = now_micros();
    let started = process.start_time.map_or(now / 1_000_000, |time| time.seconds);
    HostAgentProcess {
        id: PROCESS_ID,
        alias: NAME,
        pid: process.pid,
        user: process.user,
        start_command: process.command_line,
        ports: process.ports,
        elapsed_time: now / 1_000_000 - started,
        last_active_time: ocp_time(now),
        status: STARTED,
        operable: true,
        log_file_pattern: format!("{}/*", process.log_dir),
    }
}

impl HostAgentProcess {
    /// The same after its end.
    pub(super) fn stopped(self) -> Self {
        Self { pid: 0, ports: Vec::new(), elapsed_time: 0, status: STOPPED, ..self }
    }
}

/// Refuses the id of a process that no agent has.
pub(super) fn check_process(host_id: i64, process_id: i64) -> Result<(), ApiError> {
    if process_id == PROCESS_ID {
        return Ok(());
    }
    let text = format_args!("the agent of host {host_id} has no process {process_id}; its only one is {PROCESS_ID}");
    Err(ApiError::not_found("CMP07054", text))
}

/// Asks the agent of a host, which has to answer.
pub(super) async fn process_of(state: &ApiState, host_id: i64) -> Result<HostAgentProcess, ApiError> {
    let host = find(state, host_id).await?;
    let own = ask(state, &host).await.map_err(|silence| silence.problem);
    let own = own.and_then(|facts| facts.agent_process.ok_or_else(|| "it tells no process".into()));
    own.map(process).map_err(|problem: String| {
        let text = format_args!("the agent of host {host_id} cannot be asked for its process: {problem}");
        ApiError::new(StatusCode::BAD_GATEWAY, "CMP07004", text)
            .advise("see on the host whether oblet-agent runs and its port is open")
    })
}

pub(super) async fn find(state: &ApiState, id: i64) -> Result<Host, ApiError> {
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    host::get(&mut connection, id).await?.ok_or_else(|| absent(id))
}

pub(super) async fn ask(state: &ApiState, host: &Host) -> Result<DescribeHostResponse, Silence> {
    state.engine().describe_host(host.inner_ip, host.agent_port).await
}

/// Returns the current state of a host's agent.
#[utoipa::path(
    get, path = "/api/v2/compute/hosts/{id}/agent", tag = "agents", operation_id = "getHostAgent", params(("id" = i64, Path)),
    responses((status = 200, description = "Done.", body = Envelope<HostAgent>), (status = 404, description = "It does not exist.", body = ErrorEnvelope)),
)]
async fn get(State(state): State<ApiState>, PathOf(id): PathOf<i64>) -> Result<Reply<HostAgent>, ApiError> {
    let host = find(&state, id).await?;
    let mut agent = HostAgent {
        id: host.id,
        host_id: host.id,
        host_inner_ip_address: host.inner_ip.to_string(),
        version: host.details.agent_version.clone(),
        status: UNREACHABLE,
        problem: None,
        install_home: None,
        log_home: None,
        last_available_time: None,
        processes: Vec::new(),
    };
    match ask(&state, &host).await {
        Ok(facts) => {
            agent.status = STARTED;
            agent.version = facts.agent_version;
            agent.last_available_time = Some(ocp_time(now_micros()));
            if let Some(own) = facts.agent_process {
                agent.install_home = Some(own.program_dir.clone());
                agent.log_home = Some(own.log_dir.clone());
                agent.processes.push(process(own));
            }
        }
        Err(silence) => {
            agent.status = if silence.is_stopped { STOPPED } else { UNREACHABLE };
            agent.problem = Some(silence.problem);
        }
    }
    Ok(Reply(agent))
}

/// Lists the processes of an agent. The list is empty if the agent does not respond.
#[utoipa::path(
    get, path = "/api/v2/compute/hosts/{id}/agent/processes", tag = "agents", operation_id = "listHostAgentProcesses",
    params(("id" = i64, Path), ("page" = Option<i64>, Query), ("size" = Option<i64>, Query)),
    responses((status = 200, description = "Done.", body = Envelope<Page<HostAgentProcess>>), (status = 404, description = "It does not exist.", body = ErrorEnvelope)),
)]
async fn list_processes(
    State(state): State<ApiState>,
    PathOf(id): PathOf<i64>,
    params: Params,
) -> Result<Reply<Page<HostAgentProcess>>, ApiError> {
    let paging = params.paging()?;
    params.oldest_first()?;
    let host = find(&state, id).await?;
    let processes: Vec<_> = ask(&state, &host).await.ok().and_then(|facts| facts.agent_process).into_iter().collect();
    let total = i64::try_from(processes.len()).unwrap_or(0);
    let skipped = usize::try_from(paging.offset()).unwrap_or(usize::MAX);
    let page = processes.into_iter().skip(skipped).map(process).collect();
    Ok(Reply(paging.page(page, total)))
}
