//! `/api/v2/compute/hosts`
//!
//! Unlike OCP, which installs its agent over SSH in a task, a host is added at once: its agent has to run already, is
//! asked what the host is, and the answer is the hosts themselves.

use super::{
    envelope::{Contents, Envelope, ErrorEnvelope, NoData, Page, Reply, ocp_time},
    error::{ApiError, SubError, code},
    extract::{JsonBody, Params, PathOf},
    query::DryRun,
    requester::Requester,
    state::ApiState,
};
use crate::{
    coordinator::store::{
        StoreError, clusters,
        hosts::{self, Host, HostDetails, HostFilter},
        locks,
    },
    operations::{ObjectKind, ObjectLock},
};
use axum::{extract::State, http::StatusCode};
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;
use std::{collections::HashSet, net::IpAddr};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, delete))
        .routes(routes!(create))
        .routes(routes!(batch_delete))
}

const MAX_HOSTS: usize = 50;
/// Agents that are asked at the same time.
const PARALLEL_AGENTS: usize = 16;
const DEFAULT_AGENT_PORT: u16 = 62898;
const DEFAULT_METRICS_PORT: u16 = 62899;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HostView {
    /// Absent where nothing was added, because it was a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i64>,
    /// The same as `id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    host_id: Option<i64>,
    name: String,
    alias: String,
    description: String,
    inner_ip_address: String,
    /// NEW, AVAILABLE, ONLINE, OFFLINE or DELETING.
    status: &'static str,
    operating_system: String,
    operating_system_release: String,
    architecture: String,
    serial_number: String,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh_port: Option<u16>,
    services: Vec<ServiceView>,
    host_agent_version: String,
    /// Port of the agent's gRPC service.
    mgragent_port: u16,
    /// Port of the agent's metrics.
    monagent_port: u16,
    create_time: String,
    update_time: String,
}

/// What runs on a host.
#[derive(Serialize, ToSchema)]
struct ServiceView {
    /// Name of the cluster.
    name: String,
    version: String,
    r#type: &'static str,
}

async fn view(connection: &mut AnyConnection, host: Host) -> Result<HostView, StoreError> {
    let mut services = Vec::new();
    for proxy in clusters::proxies_on_host(connection, host.id).await? {
        let cluster = clusters::get(connection, proxy.cluster_id).await?;
        services.push(ServiceView {
            name: cluster.map(|cluster| cluster.name.to_string()).unwrap_or_default(),
            version: proxy.version.version_build(),
            r#type: "OB_PROXY",
        });
    }
    let details = host.details;
    Ok(HostView {
        id: Some(host.id),
        host_id: Some(host.id),
        name: details.hostname,
        alias: details.alias,
        description: details.description,
        inner_ip_address: host.inner_ip.to_string(),
        status: host.status.as_str(),
        operating_system: details.operating_system,
        operating_system_release: details.operating_system_release,
        architecture: details.architecture,
        serial_number: details.serial_number,
        kind: details.kind,
        ssh_port: details.ssh_port,
        services,
        host_agent_version: details.agent_version,
        mgragent_port: host.agent_port,
        monagent_port: host.metrics_port,
        create_time: ocp_time(host.created_at),
        update_time: ocp_time(host.updated_at),
    })
}

pub(super) fn absent(id: i64) -> ApiError {
    ApiError::not_found("CMP07005", format_args!("the host {id} does not exist"))
        .advise("see the hosts with: oblet host list")
}

/// Lists hosts.
#[utoipa::path(
    get, path = "/api/v2/compute/hosts", tag = "hosts", operation_id = "listHosts",
    params(
        ("keyword" = Option<String>, Query, description = "Part of the address, the alias or the name."),
        ("status" = Option<Vec<String>>, Query), ("page" = Option<i64>, Query), ("size" = Option<i64>, Query),
    ),
    responses((status = 200, description = "Done.", body = Envelope<Page<HostView>>)),
)]
async fn list(State(state): State<ApiState>, params: Params) -> Result<Reply<Page<HostView>>, ApiError> {
    let paging = params.paging()?;
    params.oldest_first()?;
    let filter =
        HostFilter { keyword: params.text("keyword").map(ToOwned::to_owned), statuses: params.list("status")? };
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let (found, total) = hosts::list(&mut connection, &filter, paging.size, paging.offset()).await?;
    let mut views = Vec::with_capacity(found.len());
    for host in found {
        views.push(view(&mut connection, host).await?);
    }
    Ok(Reply(paging.page(views, total)))
}

/// Answers one host.
#[utoipa::path(
    get, path = "/api/v2/compute/hosts/{id}", tag = "hosts", operation_id = "getHost", params(("id" = i64, Path)),
    responses((status = 200, description = "Done.", body = Envelope<HostView>), (status = 404, description = "There is no such thing.", body = ErrorEnvelope)),
)]
async fn get(State(state): State<ApiState>, PathOf(id): PathOf<i64>) -> Result<Reply<HostView>, ApiError> {
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let host = hosts::get(&mut connection, id).await?.ok_or_else(|| absent(id))?;
    Ok(Reply(view(&mut connection, host).await?))
}

/// Hosts to add. Members that say how OCP reaches a host by SSH, or where it stands, are accepted and have no effect.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BatchCreate {
    /// At most 50.
    host_basic_data_list: Vec<HostBasicData>,
    ssh_port: Option<u16>,
    kind: Option<String>,
    alias: Option<String>,
    description: Option<String>,
    /// Port of the agent's gRPC service; 62898 if absent.
    #[serde(alias = "mgrAgentPort")]
    mgragent_port: Option<u16>,
    /// Port of the agent's metrics; if absent, what the agent says.
    #[serde(alias = "monAgentPort")]
    monagent_port: Option<u16>,
    #[serde(rename = "publishPorts")]
    _publish_ports: Option<serde_json::Value>,
    #[serde(rename = "idcId")]
    _idc_id: Option<i64>,
    #[serde(rename = "typeId")]
    _type_id: Option<i64>,
    #[serde(rename = "credentialId")]
    _credential_id: Option<i64>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HostBasicData {
    #[schema(value_type = String, example = "192.0.2.1")]
    inner_ip_address: IpAddr,
    serial_number: Option<String>,
}

/// Adds hosts whose agents run, all of them or none.
#[utoipa::path(
    post, path = "/api/v2/compute/hosts/batchCreate", tag = "hosts", operation_id = "createHosts",
    params(DryRun),
    request_body = BatchCreate,
    responses(
        (status = 200, description = "Done.", body = Envelope<Contents<HostView>>),
        (status = 409, description = "A host is known already, or stands in the list twice.", body = ErrorEnvelope),
        (status = 502, description = "An agent did not answer, or is not that of the host.", body = ErrorEnvelope),
    ),
)]
async fn create(
    State(state): State<ApiState>,
    requester: Requester,
    DryRun(dry_run): DryRun,
    JsonBody(body): JsonBody<BatchCreate>,
) -> Result<Reply<Contents<HostView>>, ApiError> {
    if body.host_basic_data_list.is_empty() || body.host_basic_data_list.len() > MAX_HOSTS {
        let why = format_args!("1 to {MAX_HOSTS} hosts are added at a time");
        return Err(ApiError::invalid("hostBasicDataList", why));
    }
    if body.mgragent_port == Some(0) || body.monagent_port == Some(0) {
        return Err(ApiError::invalid("mgragentPort, monagentPort", "a port lies between 1 and 65535"));
    }
    let known = |ip: IpAddr| {
        ApiError::conflict("CMP07001", format_args!("the host {ip} is known already"))
            .advise("leave it out; see the hosts with: oblet host list")
    };
    let mut seen = HashSet::new();
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    for host in &body.host_basic_data_list {
        let ip = host.inner_ip_address;
        if ip.is_unspecified() || ip.is_multicast() {
            return Err(ApiError::invalid("innerIpAddress", format_args!("{ip} is no address of a host")));
        }
        if !seen.insert(ip) {
            return Err(ApiError::conflict("CMP07001", format_args!("the host {ip} is named twice"))
                .advise("name each host once"));
        }
        if hosts::by_ip(&mut connection, ip).await?.is_some() {
            return Err(known(ip));
        }
    }
    drop(connection);

    let found = describe_all(&state, &body).await?;
    let mut transaction = state.store().begin().await?;
    let mut views = Vec::with_capacity(found.len());
    for described in found {
        let Described { ip, agent_port, metrics_port, details } = described;
        let host = hosts::insert(&mut transaction, ip, agent_port, metrics_port, &details).await;
        let host = host.map_err(|error| if error.is_conflict() { known(ip) } else { error.into() })?;
        requester.audit(&mut transaction, "host.add", &format!("host {}", host.id), &ip.to_string()).await?;
        views.push(view(&mut transaction, host).await?);
    }
    if dry_run {
        transaction.rollback().await.map_err(StoreError::from)?;
        let planned = views.into_iter().map(|host| HostView { id: None, host_id: None, ..host });
        return Ok(Reply(Contents { contents: planned.collect() }));
    }
    transaction.commit().await.map_err(StoreError::from)?;
    for host in &views {
        tracing::info!(host_id = host.id, address = host.inner_ip_address, "host added");
    }
    Ok(Reply(Contents { contents: views }))
}

struct Described {
    ip: IpAddr,
    agent_port: u16,
    metrics_port: u16,
    details: HostDetails,
}

async fn describe_all(state: &ApiState, body: &BatchCreate) -> Result<Vec<Described>, ApiError> {
    let asked: Vec<_> = body.host_basic_data_list.iter().map(|host| describe(state, body, host)).collect();
    let answers: Vec<_> = stream::iter(asked).buffered(PARALLEL_AGENTS).collect().await;
    let failed = |(host, answer): (&HostBasicData, &Result<Described, String>)| {
        let message = answer.as_ref().err()?.clone();
        Some(SubError { field: host.inner_ip_address.to_string(), message })
    };
    let failures: Vec<SubError> = body.host_basic_data_list.iter().zip(&answers).filter_map(failed).collect();
    let Some(first) = failures.first() else {
        return Ok(answers.into_iter().filter_map(Result::ok).collect());
    };
    let text = format!("{}: {}", first.field, first.message);
    Err(ApiError::new(StatusCode::BAD_GATEWAY, "CMP07002", text)
        .with_sub_errors(failures)
        .advise("start oblet-agent on the host, check address, port and certificates, then add the hosts again"))
}

async fn describe(state: &ApiState, body: &BatchCreate, host: &HostBasicData) -> Result<Described, String> {
    let agent_port = body.mgragent_port.unwrap_or(DEFAULT_AGENT_PORT);
    let said = state.engine().describe_host(host.inner_ip_address, agent_port).await?;
    let own_port = u16::try_from(said.metrics_port).ok().filter(|port| *port > 0);
    Ok(Described {
        ip: host.inner_ip_address,
        agent_port,
        metrics_port: body.monagent_port.or(own_port).unwrap_or(DEFAULT_METRICS_PORT),
        details: HostDetails {
            alias: body.alias.clone().unwrap_or_default(),
            description: body.description.clone().unwrap_or_default(),
            serial_number: host.serial_number.clone().unwrap_or_default(),
            kind: body.kind.clone().unwrap_or_else(|| "DEDICATED_PHYSICAL_MACHINE".to_owned()),
            ssh_port: body.ssh_port,
            operating_system: said.operating_system,
            operating_system_release: said.kernel_release,
            architecture: said.architecture,
            hostname: said.hostname,
            agent_version: said.agent_version,
        },
    })
}

/// Forgets a host on which nothing runs. Its agent is left as it is.
#[utoipa::path(
    delete, path = "/api/v2/compute/hosts/{id}", tag = "hosts", operation_id = "deleteHost",
    params(("id" = i64, Path), DryRun),
    responses(
        (status = 200, description = "No data."),
        (status = 404, description = "There is no such thing.", body = ErrorEnvelope),
        (status = 409, description = "A proxy is on it, or a task has reserved it.", body = ErrorEnvelope),
    ),
)]
async fn delete(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf(id): PathOf<i64>,
    dry_run: DryRun,
) -> Result<NoData, ApiError> {
    delete_all(&state, &requester, dry_run, &[id]).await
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BatchDelete {
    host_id_list: Vec<i64>,
}

/// Forgets hosts on which nothing runs, all of them or none.
#[utoipa::path(
    post, path = "/api/v2/compute/hosts/batchDelete", tag = "hosts", operation_id = "deleteHosts",
    params(DryRun),
    request_body = BatchDelete,
    responses((status = 200, description = "No data."), (status = 409, description = "It conflicts with what is there.", body = ErrorEnvelope)),
)]
async fn batch_delete(
    State(state): State<ApiState>,
    requester: Requester,
    dry_run: DryRun,
    JsonBody(body): JsonBody<BatchDelete>,
) -> Result<NoData, ApiError> {
    if body.host_id_list.is_empty() {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, code::INVALID_PARAMETER, "hostIdList: names no host"));
    }
    delete_all(&state, &requester, dry_run, &body.host_id_list).await
}

async fn delete_all(
    state: &ApiState,
    requester: &Requester,
    DryRun(dry_run): DryRun,
    ids: &[i64],
) -> Result<NoData, ApiError> {
    let mut transaction = state.store().begin().await?;
    for id in ids {
        if let Some(proxy) = clusters::proxies_on_host(&mut transaction, *id).await?.first() {
            let text = format_args!(
                "the host {id} is in use: proxy {} ({}) is on it, at SQL port {}",
                proxy.id, proxy.status, proxy.sql_port
            );
            return Err(ApiError::conflict("CMP07004", text)
                .advise("if its installation failed, roll that task back; else the host stays"));
        }
        let lock = ObjectLock::exclusive(ObjectKind::Host, *id);
        if let Some(holder) = locks::holder(&mut transaction, &lock).await? {
            return Err(holder.into());
        }
        let host = hosts::get(&mut transaction, *id).await?.ok_or_else(|| absent(*id))?;
        hosts::delete(&mut transaction, *id).await?;
        requester.audit(&mut transaction, "host.delete", &lock.to_string(), &host.inner_ip.to_string()).await?;
    }
    if dry_run {
        transaction.rollback().await.map_err(StoreError::from)?;
        return Ok(NoData);
    }
    transaction.commit().await.map_err(StoreError::from)?;
    Ok(NoData)
}
