//! `/api/v2/compute/hosts`: which hosts there are, and letting go of them. How they come is in `creation.rs`.

pub(super) mod creation;
pub(super) mod places;

use super::frame::{
    commit::commit_and,
    envelope::{Envelope, ErrorEnvelope, NoData, Page, Reply, ocp_time},
    error::ApiError,
    extract::{JsonBody, Params, PathOf},
    limits::check_count,
    query::DryRun,
    requester::Requester,
    state::ApiState,
    words::HostAgentStatus,
};
use crate::{
    coordinator::{
        enrolment::Enrolment,
        store::{
            StoreError,
            host::{self, Host, HostFilter, HostStatus, places::Place},
            locks, obproxy,
        },
    },
    operations::{ObjectKind, ObjectLock},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;
use std::collections::HashMap;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Deleted at a time: other changes wait for the transaction.
const MOST_DELETED: usize = 200;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, delete))
        .routes(routes!(batch_delete))
        .merge(creation::router())
        .merge(places::router())
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HostView {
    id: i64,
    /// The same as `id`.
    host_id: i64,
    name: String,
    alias: String,
    description: String,
    inner_ip_address: String,
    /// NEW, AVAILABLE, ONLINE, OFFLINE or DELETING.
    #[schema(value_type = HostStatus)]
    status: &'static str,
    operating_system: String,
    operating_system_release: String,
    architecture: String,
    serial_number: String,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh_port: Option<u16>,
    services: Vec<ServiceView>,
    #[serde(flatten)]
    place: HostPlace,
    /// The same as `id`, because a host has one agent.
    host_agent_id: i64,
    host_agent_version: String,
    /// AVAILABLE or OFFLINE; omitted until the host is prepared.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<HostAgentStatus>)]
    host_agent_status: Option<&'static str>,
    /// Port of the agent's gRPC service.
    mgragent_port: u16,
    /// Port of the agent's metrics.
    monagent_port: u16,
    create_time: String,
    update_time: String,
}

/// Data centre, region and type of a host, if known.
#[derive(Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HostPlace {
    #[serde(skip_serializing_if = "Option::is_none")]
    idc_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idc_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idc_description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region_description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    type_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    type_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    type_description: Option<String>,
}

impl HostPlace {
    fn of(host: &Host, places: &HashMap<i64, Place>) -> Self {
        let find = |id: Option<i64>| id.and_then(|id| places.get(&id)).cloned();
        let parts = |place: Option<Place>| match place {
            Some(Place { id, name, description, .. }) => (Some(id), Some(name), Some(description)),
            None => (None, None, None),
        };
        let idc = find(host.idc_id);
        let region = parts(find(idc.as_ref().and_then(|idc| idc.region_id)));
        let (idc, of_type) = (parts(idc), parts(find(host.type_id)));
        Self {
            idc_id: idc.0,
            idc_name: idc.1,
            idc_description: idc.2,
            region_id: region.0,
            region_name: region.1,
            region_description: region.2,
            type_id: of_type.0,
            type_name: of_type.1,
            type_description: of_type.2,
        }
    }
}

/// What runs on a host.
#[derive(Serialize, ToSchema)]
struct ServiceView {
    /// Name of the cluster.
    name: String,
    version: String,
    r#type: &'static str,
}

/// In the order of the hosts; with as many queries for many of them as for one.
async fn views(connection: &mut AnyConnection, list: Vec<Host>) -> Result<Vec<HostView>, StoreError> {
    let ids: Vec<i64> = list.iter().map(|host| host.id).collect();
    let proxies = obproxy::proxies_on(connection, &ids).await?;
    let names = obproxy::names(connection, proxies.iter().map(|proxy| proxy.cluster_id)).await?;
    let mut services: HashMap<i64, Vec<ServiceView>> = HashMap::new();
    for proxy in proxies {
        services.entry(proxy.host_id).or_default().push(ServiceView {
            name: names.get(&proxy.cluster_id).cloned().unwrap_or_default(),
            version: proxy.version.version_build(),
            r#type: "OB_PROXY",
        });
    }
    let places = places::of_hosts(connection, &list).await?;
    let view = |host: Host| {
        let services = services.remove(&host.id).unwrap_or_default();
        let place = HostPlace::of(&host, &places);
        view(host, services, place)
    };
    Ok(list.into_iter().map(view).collect())
}

fn view(host: Host, services: Vec<ServiceView>, place: HostPlace) -> HostView {
    let details = host.details;
    HostView {
        id: host.id,
        host_id: host.id,
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
        place,
        host_agent_id: host.id,
        host_agent_version: details.agent_version,
        host_agent_status: agent_status(host.status),
        mgragent_port: host.agent_port,
        monagent_port: host.metrics_port,
        create_time: ocp_time(host.created_at),
        update_time: ocp_time(host.updated_at),
    }
}

/// As the hosts were last seen; how an agent is at this moment tells `agent` below its host.
fn agent_status(host: HostStatus) -> Option<&'static str> {
    match host {
        HostStatus::New => None,
        HostStatus::Available | HostStatus::Online | HostStatus::Deleting => Some("AVAILABLE"),
        HostStatus::Offline => Some("OFFLINE"),
    }
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
        ("status" = inline(Option<Vec<HostStatus>>), Query), ("page" = Option<i64>, Query), ("size" = Option<i64>, Query),
    ),
    responses((status = 200, description = "Done.", body = Envelope<Page<HostView>>)),
)]
async fn list(State(state): State<ApiState>, params: Params) -> Result<Reply<Page<HostView>>, ApiError> {
    let paging = params.paging()?;
    params.oldest_first()?;
    let filter =
        HostFilter { keyword: params.text("keyword").map(ToOwned::to_owned), statuses: params.list("status")? };
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let (found, total) = host::list(&mut connection, &filter, paging.size, paging.offset()).await?;
    Ok(Reply(paging.page(views(&mut connection, found).await?, total)))
}

/// Returns a host.
#[utoipa::path(
    get, path = "/api/v2/compute/hosts/{id}", tag = "hosts", operation_id = "getHost", params(("id" = i64, Path)),
    responses((status = 200, description = "Done.", body = Envelope<HostView>), (status = 404, description = "It does not exist.", body = ErrorEnvelope)),
)]
async fn get(State(state): State<ApiState>, PathOf(id): PathOf<i64>) -> Result<Reply<HostView>, ApiError> {
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let host = host::get(&mut connection, id).await?.ok_or_else(|| absent(id))?;
    views(&mut connection, vec![host]).await?.into_iter().next().map(Reply).ok_or_else(|| absent(id))
}

/// Removes a host that runs no services. Its agent keeps running, is disconnected, and is trusted again only after another
/// enrolment.
#[utoipa::path(
    delete, path = "/api/v2/compute/hosts/{id}", tag = "hosts", operation_id = "deleteHost",
    params(("id" = i64, Path), DryRun),
    responses(
        (status = 200, description = "No data."),
        (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 409, description = "A proxy is on it, or a task has reserved it.", body = ErrorEnvelope),
    ),
)]
async fn delete(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf(id): PathOf<i64>,
    dry_run: DryRun,
) -> Result<NoData, ApiError> {
    delete_all(state, &requester, dry_run, &[id]).await
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BatchDelete {
    /// At most 200.
    #[schema(min_items = 1, max_items = 200)]
    host_id_list: Vec<i64>,
}

/// Removes hosts that run no services: all of them or none.
#[utoipa::path(
    post, path = "/api/v2/compute/hosts/batchDelete", tag = "hosts", operation_id = "deleteHosts",
    params(DryRun),
    request_body = BatchDelete,
    responses(
        (status = 200, description = "No data."),
        (status = 404, description = "A host does not exist.", body = ErrorEnvelope),
        (status = 409, description = "A proxy is on a host, or a task has reserved it.", body = ErrorEnvelope),
    ),
)]
async fn batch_delete(
    State(state): State<ApiState>,
    requester: Requester,
    dry_run: DryRun,
    JsonBody(body): JsonBody<BatchDelete>,
) -> Result<NoData, ApiError> {
    if body.host_id_list.is_empty() {
        return Err(ApiError::invalid("hostIdList", "is empty"));
    }
    check_count("hostIdList", body.host_id_list.len(), MOST_DELETED)?;
    delete_all(state, &requester, dry_run, &body.host_id_list).await
}

/// Nothing that was valid for a host outlives it: some of its certificates may be made by hand and be on no record, and
/// whoever has the address next may have them too.
async fn delete_all(
    state: ApiState,
    requester: &Requester,
    DryRun(dry_run): DryRun,
    ids: &[i64],
) -> Result<NoData, ApiError> {
    let mut transaction = state.store().begin().await?;
    let mut removed = Vec::new();
    for id in ids {
        if let Some(proxy) = obproxy::proxies_on(&mut transaction, &[*id]).await?.first() {
            let text = format_args!(
                "the host {id} is in use: proxy {} ({}) is on it, at SQL port {}",
                proxy.id, proxy.status, proxy.sql_port
            );
            return Err(ApiError::conflict("CMP07004", text)
                .advise("if its installation failed, roll that task back; otherwise keep the host"));
        }
        let lock = ObjectLock::exclusive(ObjectKind::Host, *id);
        if let Some(holder) = locks::holder(&mut transaction, &lock).await? {
            return Err(holder.into());
        }
        let host = host::get(&mut transaction, *id).await?.ok_or_else(|| absent(*id))?;
        host::delete(&mut transaction, *id).await?;
        Enrolment::revoke(&mut transaction, host.inner_ip, &requester.name).await?;
        requester.audit(&mut transaction, "host.delete", &lock.to_string(), &host.inner_ip.to_string()).await?;
        removed.push(host.inner_ip);
    }
    if dry_run {
        transaction.rollback().await.map_err(StoreError::from)?;
    } else {
        commit_and(transaction, async move { removed.into_iter().for_each(|host| state.engine().cut_off(host)) })
            .await?;
    }
    Ok(NoData)
}
