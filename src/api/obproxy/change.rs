//! Changes of a proxy cluster that concern no proxy: under which address clients reach it.

use super::{absent, address, port, view, view::ObproxyClusterView};
use crate::{
    api::frame::{
        commit::commit_unless,
        envelope::{Envelope, ErrorEnvelope, Reply},
        error::ApiError,
        extract::{JsonBody, PathOf},
        query::DryRun,
        requester::Requester,
        state::ApiState,
    },
    coordinator::store::{
        locks, now_micros,
        obproxy::{self, Cluster},
    },
    operations::{ObjectKind, ObjectLock},
};
use axum::extract::State;
use serde::{Deserialize, Deserializer};
use sqlx::AnyConnection;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(change))
}

/// What changes of a proxy cluster: one of the fields or both. What is omitted stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(min_properties = 1)]
struct ChangeCluster {
    /// Address at which clients reach the cluster; null removes it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 255)]
    address: Option<Option<String>>,
    /// Null removes it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u16>, maximum = 65535)]
    port: Option<Option<u16>>,
}

/// Tells a member that is null from one that is omitted.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A cluster that is to be changed at once; 409 while a task has it for itself.
pub(super) async fn to_change(connection: &mut AnyConnection, id: i64) -> Result<Cluster, ApiError> {
    // Tasks that add proxies share the cluster, and need neither its address nor, in CONFIG_URL, its links.
    let lock = ObjectLock::shared(ObjectKind::ObproxyCluster, id);
    if let Some(holder) = locks::holder(connection, &lock).await? {
        return Err(holder.into());
    }
    obproxy::get(connection, id).await?.ok_or_else(|| absent(id))
}

/// Changes the address and port at which clients reach a proxy cluster. No proxy is touched.
#[utoipa::path(
    patch, path = "/api/v2/obproxy/clusters/{id}", tag = "obproxy", operation_id = "changeObproxyCluster",
    params(("id" = i64, Path), DryRun),
    request_body = ChangeCluster,
    responses(
        (status = 200, description = "Done.", body = Envelope<ObproxyClusterView>),
        (status = 400, description = "A field is wrong, or there is none.", body = ErrorEnvelope),
        (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 409, description = "A task has reserved the cluster.", body = ErrorEnvelope),
    ),
)]
async fn change(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf(id): PathOf<i64>,
    dry_run: DryRun,
    JsonBody(body): JsonBody<ChangeCluster>,
) -> Result<Reply<ObproxyClusterView>, ApiError> {
    if body.address.is_none() && body.port.is_none() {
        return Err(ApiError::invalid("address, port", "at least one of the two is given"));
    }
    let new_address = body.address.map(address).transpose()?;
    let new_port = body.port.map(port);
    let mut transaction = state.store().begin().await?;
    let old = to_change(&mut transaction, id).await?;
    let mut cluster = old.clone();
    cluster.address = new_address.unwrap_or(cluster.address);
    cluster.port = new_port.unwrap_or(cluster.port);
    if (&cluster.address, cluster.port) != (&old.address, old.port) {
        cluster.updated_at = now_micros();
        let detail = format!("{}, from {} to {}", cluster.name, place(&old), place(&cluster));
        let Cluster { address, port, updated_at, .. } = &cluster;
        obproxy::set_address(&mut transaction, id, address.as_deref(), *port, *updated_at).await?;
        requester.audit(&mut transaction, "obproxyCluster.update", &format!("obproxy cluster {id}"), &detail).await?;
    }
    let views = view::views(&mut transaction, vec![cluster], &state.settings.config_url_base).await?;
    commit_unless(dry_run, transaction).await?;
    views.into_iter().next().map(Reply).ok_or_else(|| absent(id))
}

/// In words, for the audit log.
fn place(cluster: &Cluster) -> String {
    let address = cluster.address.as_deref().unwrap_or("no address");
    let port = cluster.port.map_or_else(|| "no port".to_owned(), |port| format!("port {port}"));
    format!("{address}, {port}")
}
