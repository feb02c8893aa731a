//! Removing proxies from their cluster, and a whole cluster.

use super::{absent, install};
use crate::{
    api::{
        frame::{
            envelope::{Envelope, ErrorEnvelope, Reply},
            error::ApiError,
            extract::{Params, PathOf},
            once::{Keyed, Once},
            query::DryRun,
            requester::Requester,
            state::ApiState,
        },
        task::{
            self,
            view::{self as task_view, TaskInstance},
        },
    },
    coordinator::store::{
        StoreError,
        obproxy::{self, Cluster, Obproxy},
        package,
    },
    operations::{ObproxyRemoval, RemovedProxy, remove_obproxies},
    steps::{KnownObproxy, ObproxyRef},
};
use axum::{
    extract::{FromRequestParts, State},
    http::{StatusCode, request::Parts},
};
use serde::Deserialize;
use sqlx::AnyConnection;
use std::collections::HashSet;
use utoipa::{
    ToSchema,
    openapi::{
        Required,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::{ObjectBuilder, Type},
    },
};

/// Of one request.
const MOST_PROXIES: usize = 200;
const KEEP_LOGS: &str = "keepLogs";
const SKIPPED: &str = "skipHostOperationServerIds";

/// Which proxies go.
enum Chosen {
    /// All of them, and the cluster.
    Cluster,
    /// These, which this member of the request names.
    Proxies(&'static str, Vec<i64>),
}

/// What is done with the proxies that go, as the query says.
pub(super) struct Extent {
    /// Proxies on hosts that are gone.
    skipped: Vec<i64>,
    keep_logs: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Extent {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = Params::from_request_parts(parts, state).await?;
        Ok(Self { skipped: params.list(SKIPPED)?, keep_logs: params.parsed(KEEP_LOGS)?.unwrap_or(true) })
    }
}

impl utoipa::IntoParams for Extent {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let parameter = |name: &str, kind, description: &str| {
            let schema = ObjectBuilder::new().schema_type(kind);
            let parameter =
                ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query).required(Required::False);
            parameter.description(Some(description)).schema(Some(schema)).build()
        };
        vec![
            parameter(
                KEEP_LOGS,
                Type::Boolean,
                "Keeps the logs on the hosts, in PORT.removed-TIME beside the directory of the proxy. Default true.",
            ),
            parameter(
                SKIPPED,
                Type::String,
                "Those of the proxies whose hosts are gone, joined by commas: they are only forgotten.",
            ),
        ]
    }
}

/// Removes proxies from their cluster and from their hosts.
#[utoipa::path(
    delete, path = "/api/v2/obproxy/clusters/{id}/obproxies/{obproxyIds}", tag = "obproxy", operation_id = "deleteObproxies",
    params(
        ("id" = i64, Path),
        ("obproxyIds" = String, Path, description = "Ids of proxies, joined by commas; at most 200."),
        Extent, DryRun, ("Idempotency-Key" = Option<String>, Header, description = "If the request is repeated with the same key, it returns the same task."),
    ),
    responses(
        (status = 200, description = "Done.", body = Envelope<TaskInstance>), (status = 400, description = "A parameter is wrong.", body = ErrorEnvelope),
        (status = 404, description = "The cluster or a proxy does not exist.", body = ErrorEnvelope),
        (status = 409, description = "A task has reserved the proxy, its host or the cluster, or the key was used for another request.", body = ErrorEnvelope),
    ),
)]
pub(super) async fn delete_proxies(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf((id, proxies)): PathOf<(i64, String)>,
    extent: Extent,
    dry_run: DryRun,
    once: Once,
) -> Result<Reply<TaskInstance>, ApiError> {
    let member = "obproxyIds";
    let proxies = proxies.split(',').map(str::parse).collect::<Result<Vec<i64>, _>>();
    let proxies = proxies.map_err(|_| ApiError::invalid(member, "must be ids of proxies, joined by commas"))?;
    begin(&state, &requester, id, (Chosen::Proxies(member, proxies), extent), dry_run, &once).await
}

/// Removes all proxies of a cluster from their hosts, and the cluster.
#[utoipa::path(
    delete, path = "/api/v2/obproxy/clusters/{id}", tag = "obproxy", operation_id = "deleteObproxyCluster",
    params(
        ("id" = i64, Path),
        Extent, DryRun, ("Idempotency-Key" = Option<String>, Header, description = "If the request is repeated with the same key, it returns the same task."),
    ),
    responses(
        (status = 200, description = "Done.", body = Envelope<TaskInstance>), (status = 400, description = "A parameter is wrong.", body = ErrorEnvelope),
        (status = 404, description = "The cluster does not exist.", body = ErrorEnvelope),
        (status = 409, description = "A task has reserved the cluster, a proxy or a host, or the key was used for another request.", body = ErrorEnvelope),
    ),
)]
pub(super) async fn delete_cluster(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf(id): PathOf<i64>,
    extent: Extent,
    dry_run: DryRun,
    once: Once,
) -> Result<Reply<TaskInstance>, ApiError> {
    begin(&state, &requester, id, (Chosen::Cluster, extent), dry_run, &once).await
}

/// Proxies that go.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeletedServers {
    /// At most 200.
    #[schema(min_items = 1, max_items = 200)]
    obproxy_server_ids: Vec<i64>,
    /// Those of them whose hosts are gone: they are only forgotten.
    #[serde(default)]
    #[schema(max_items = 200)]
    skip_host_operation_server_ids: Vec<i64>,
    /// Keeps the logs on the hosts. Default true.
    keep_logs: Option<bool>,
    /// OCP's name for the header `Idempotency-Key`: 8 to 64 characters.
    #[serde(rename = "clientToken")]
    #[schema(min_length = 8, max_length = 64)]
    _client_token: Option<String>,
}

/// Removes proxies as DELETE does, with a body.
#[utoipa::path(
    post, path = "/api/v2/obproxy/clusters/{id}/servers/delete", tag = "obproxy", operation_id = "deleteObproxyServers",
    params(
        ("id" = i64, Path),
        DryRun, ("Idempotency-Key" = Option<String>, Header, description = "If the request is repeated with the same key, it returns the same task."),
    ),
    request_body = DeletedServers,
    responses(
        (status = 200, description = "Done.", body = Envelope<TaskInstance>), (status = 400, description = "A field is missing or wrong.", body = ErrorEnvelope),
        (status = 404, description = "The cluster or a proxy does not exist.", body = ErrorEnvelope),
        (status = 409, description = "A task has reserved the proxy, its host or the cluster, or the key was used for another request.", body = ErrorEnvelope),
    ),
)]
pub(super) async fn delete_servers(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf(id): PathOf<i64>,
    dry_run: DryRun,
    Keyed { body, once }: Keyed<DeletedServers>,
) -> Result<Reply<TaskInstance>, ApiError> {
    let chosen = Chosen::Proxies("obproxyServerIds", body.obproxy_server_ids);
    let extent = Extent { skipped: body.skip_host_operation_server_ids, keep_logs: body.keep_logs.unwrap_or(true) };
    begin(&state, &requester, id, (chosen, extent), dry_run, &once).await
}

async fn begin(
    state: &ApiState,
    requester: &Requester,
    cluster_id: i64,
    (chosen, extent): (Chosen, Extent),
    DryRun(dry_run): DryRun,
    once: &Once,
) -> Result<Reply<TaskInstance>, ApiError> {
    let mut transaction = state.store().begin().await?;
    if !dry_run && let Some(made) = once.made(state, &mut transaction).await? {
        let made = made.into_iter().next().ok_or_else(|| ApiError::internal(&sqlx::Error::RowNotFound))?;
        return Ok(Reply(task_view::again(made)?));
    }
    let cluster = obproxy::get(&mut transaction, cluster_id).await?.ok_or_else(|| absent(cluster_id))?;
    let proxies = choose(&mut transaction, &cluster, &chosen, &extent).await?;
    let mut removed = Vec::with_capacity(proxies.len());
    for proxy in proxies {
        let skips_host = extent.skipped.contains(&proxy.id);
        removed.push(describe(state, &mut transaction, &cluster, proxy, skips_host).await?);
    }
    let removal = ObproxyRemoval {
        cluster_id,
        cluster_name: cluster.name.clone(),
        with_cluster: matches!(chosen, Chosen::Cluster),
        keep_logs: extent.keep_logs,
        proxies: removed,
    };
    let record = task::create(state, &mut transaction, &remove_obproxies(&removal), requester).await?;
    let change = |removed: &RemovedProxy| {
        let KnownObproxy { proxy, host_id, .. } = &removed.known;
        (format!("obproxy {}", proxy.server_id), format!("on host {host_id}, by task {}", record.id))
    };
    let changes: Vec<_> = removal.proxies.iter().map(change).collect();
    requester.audit_all(&mut transaction, "obproxy.delete", &changes).await?;
    if removal.with_cluster {
        let detail = format!("{}, by task {}", cluster.name, record.id);
        let object = format!("obproxy cluster {cluster_id}");
        requester.audit(&mut transaction, "obproxyCluster.delete", &object, &detail).await?;
    }
    once.remember(&mut transaction, std::slice::from_ref(&record)).await?;
    if dry_run {
        transaction.rollback().await.map_err(StoreError::from)?;
        return Ok(Reply(task_view::planned(&record)));
    }
    task::commit_and_wake(state, transaction, std::slice::from_ref(&record)).await?;
    Ok(Reply(task_view::created(&record)))
}

/// The proxies of the request, by their ids.
async fn choose(
    connection: &mut AnyConnection,
    cluster: &Cluster,
    chosen: &Chosen,
    extent: &Extent,
) -> Result<Vec<Obproxy>, ApiError> {
    let of_cluster = obproxy::proxies_of(connection, &[cluster.id]).await?;
    let chosen = match chosen {
        Chosen::Cluster => of_cluster,
        Chosen::Proxies(member, ids) => named(connection, cluster, of_cluster, member, ids).await?,
    };
    if chosen.len() > MOST_PROXIES {
        let text = format_args!("the cluster has {} proxies, at most {MOST_PROXIES} go at a time", chosen.len());
        return Err(ApiError::conflict("ODP21010", text).advise("delete some of its proxies first"));
    }
    match extent.skipped.iter().find(|skipped| chosen.iter().all(|proxy| proxy.id != **skipped)) {
        Some(other) => Err(ApiError::invalid(SKIPPED, format_args!("the proxy {other} is not among those to delete"))),
        None => Ok(chosen),
    }
}

async fn named(
    connection: &mut AnyConnection,
    cluster: &Cluster,
    of_cluster: Vec<Obproxy>,
    member: &str,
    ids: &[i64],
) -> Result<Vec<Obproxy>, ApiError> {
    if ids.is_empty() || ids.len() > MOST_PROXIES {
        return Err(ApiError::invalid(member, format_args!("1 to {MOST_PROXIES} proxies are named at a time")));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = ids.iter().find(|id| !seen.insert(**id)) {
        return Err(ApiError::invalid(member, format_args!("the proxy {twice} is named twice")));
    }
    if let Some(missing) = ids.iter().find(|id| of_cluster.iter().all(|proxy| proxy.id != **id)) {
        let elsewhere = obproxy::proxies(connection, &[*missing]).await?.remove(missing);
        return Err(match elsewhere {
            Some(proxy) => {
                let text =
                    format_args!("the proxy {missing} belongs to cluster {}, not to {}", proxy.cluster_id, cluster.id);
                ApiError::new(StatusCode::BAD_REQUEST, "ODP21015", text).about(member)
            }
            None => ApiError::not_found("ODP21002", format_args!("the OBProxy {missing} does not exist")).about(member),
        });
    }
    let wanted = |proxy: &Obproxy| ids.contains(&proxy.id);
    Ok(of_cluster.into_iter().filter(wanted).collect())
}

async fn describe(
    state: &ApiState,
    connection: &mut AnyConnection,
    cluster: &Cluster,
    proxy: Obproxy,
    skips_host: bool,
) -> Result<RemovedProxy, ApiError> {
    let file = package::by_name(connection, &proxy.version.file_name()).await?.into_iter().next();
    let ports = [proxy.sql_port, proxy.exporter_port];
    Ok(RemovedProxy {
        status: proxy.status.to_string(),
        start: install::start(state, cluster, proxy.version.clone(), ports, proxy.rpc_port)?,
        parameters: cluster.parameters.clone(),
        sha256: file.map(|file| file.sha256),
        skips_host,
        known: KnownObproxy {
            proxy: ObproxyRef { cluster_id: cluster.id, server_id: proxy.id },
            host_id: proxy.host_id,
            sql_port: proxy.sql_port,
            exporter_port: proxy.exporter_port,
            rpc_port: proxy.rpc_port,
            version: proxy.version,
            parameter_version: proxy.parameter_version,
            created_at: proxy.created_at,
        },
    })
}
