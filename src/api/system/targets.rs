//! Prometheus HTTP service discovery: where metrics are, with the labels that OceanBase's dashboards use.

use crate::{
    api::frame::{error::ApiError, extract::Params, state::ApiState},
    coordinator::store::{
        StoreError,
        host::{self, Host, HostFilter, HostStatus},
        obproxy::{self, ObproxyStatus},
    },
};
use axum::{Json, extract::State};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(in crate::api) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(targets))
}

const OBPROXY: &str = "obproxy";
const AGENT: &str = "oblet-agent";

/// The format of <https://prometheus.io/docs/prometheus/latest/http_sd/>.
#[derive(Serialize, ToSchema)]
struct TargetGroup {
    targets: Vec<String>,
    labels: BTreeMap<&'static str, String>,
}

/// Lists the targets that Prometheus scrapes. The list is always complete; a failure is an error, never an empty list.
#[utoipa::path(
    get, path = "/api/v2/prometheus/targets", tag = "monitoring", operation_id = "listPrometheusTargets",
    security(("basic" = []), ("scrapeToken" = [])),
    params(("job" = Option<String>, Query, description = "obproxy or oblet-agent; both if omitted.")),
    responses((status = 200, description = "Done.", body = Vec<TargetGroup>)),
)]
async fn targets(State(state): State<ApiState>, params: Params) -> Result<Json<Vec<TargetGroup>>, ApiError> {
    let job = params.text("job");
    if let Some(other) = job.filter(|job| ![OBPROXY, AGENT].contains(job)) {
        return Err(ApiError::invalid("job", format_args!("{other:?} is neither {OBPROXY} nor {AGENT}")));
    }
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let (hosts, _) = host::list(&mut connection, &HostFilter::default(), i64::MAX, 0).await?;
    let (clusters, _) = obproxy::list(&mut connection, i64::MAX, 0).await?;
    let proxies = obproxy::all_proxies(&mut connection).await?;

    let mut groups = Vec::new();
    if job.is_none_or(|job| job == OBPROXY) {
        let by_id: HashMap<i64, &Host> = hosts.iter().map(|host| (host.id, host)).collect();
        let names: HashMap<i64, String> = clusters.iter().map(|c| (c.id, c.name.to_string())).collect();
        for proxy in proxies.iter().filter(|proxy| proxy.status == ObproxyStatus::Running) {
            let (Some(host), Some(name)) = (by_id.get(&proxy.host_id), names.get(&proxy.cluster_id)) else { continue };
            groups.push(TargetGroup {
                targets: vec![SocketAddr::new(host.inner_ip, proxy.exporter_port.get()).to_string()],
                labels: BTreeMap::from([
                    ("app", OBPROXY.to_owned()),
                    ("ob_cluster_name", name.clone()),
                    ("obproxy_cluster_id", proxy.cluster_id.to_string()),
                    ("svr_ip", host.inner_ip.to_string()),
                    ("svr_port", proxy.sql_port.to_string()),
                ]),
            });
        }
    }
    if job.is_none_or(|job| job == AGENT) {
        // A host that is not prepared may be anybody's.
        let prepared = hosts.iter().filter(|host| host.status != HostStatus::New);
        groups.extend(prepared.map(|host| TargetGroup {
            targets: vec![SocketAddr::new(host.inner_ip, host.metrics_port).to_string()],
            labels: BTreeMap::from([("app", AGENT.to_owned()), ("svr_ip", host.inner_ip.to_string())]),
        }));
    }
    Ok(Json(groups))
}
