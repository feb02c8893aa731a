//! `/api/v2/obproxy/clusters/{id}/obLinks`: the OceanBase clusters to which the proxies of a cluster connect.
//!
//!  1. In work mode CONFIG_URL the proxies fetch the list from the config service, which reads it from the store: a
//!     change takes effect by itself.
//!  2. In work mode RS_LIST a proxy is told its one OceanBase cluster, and the servers of it, when it is started. The link
//!     of such a cluster can change as long as there is no proxy that was told another.
//!  3. A link that is there already, exactly as it is asked for, is not added again, so that a client that got no answer
//!     can repeat its request.

use super::change::to_change;
use crate::{
    api::frame::{
        commit::commit_unless,
        envelope::{ErrorEnvelope, NoData},
        error::{ApiError, SubError, code},
        extract::{JsonList, PathOf},
        limits::check_count,
        query::DryRun,
        requester::Requester,
        state::ApiState,
    },
    coordinator::store::{
        now_micros,
        obproxy::{self, Cluster, ClusterMode, ObLink},
    },
    steps::values::ClusterName,
};
use axum::extract::State;
use serde::Deserialize;
use sqlx::AnyConnection;
use std::collections::HashSet;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Of a cluster.
const MOST_LINKS: usize = 100;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(add)).routes(routes!(remove))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ObLinkParam {
    #[schema(value_type = String, max_length = 64, pattern = "^[A-Za-z][A-Za-z0-9_.-]*$")]
    cluster_name: ClusterName,
    ob_cluster_id: i64,
    #[schema(min_length = 1, max_length = 128)]
    username: String,
    /// OCP's id of the cluster; ignored.
    #[serde(rename = "clusterId")]
    _cluster_id: Option<i64>,
}

impl ObLinkParam {
    fn checked(self) -> Result<ObLink, ApiError> {
        let Self { cluster_name, ob_cluster_id, username, .. } = self;
        if username.is_empty() || username.chars().count() > 128 || username.chars().any(char::is_control) {
            return Err(ApiError::invalid("obLinks.username", "a user name has 1 to 128 printable characters"));
        }
        Ok(ObLink { cluster_name, ob_cluster_id, username })
    }
}

/// The links of a cluster that is created.
pub(super) fn distinct(list: Vec<ObLinkParam>) -> Result<Vec<ObLink>, ApiError> {
    check_count("obLinks", list.len(), MOST_LINKS)?;
    let mut seen = HashSet::new();
    let convert = |link: ObLinkParam| {
        if !seen.insert(link.cluster_name.clone()) {
            return Err(ApiError::invalid("obLinks", format_args!("{} is named twice", link.cluster_name)));
        }
        link.checked()
    };
    list.into_iter().map(convert).collect()
}

/// Adds links to OceanBase clusters: all of them or none. A link that exists already, exactly as given, is left as it is.
#[utoipa::path(
    post, path = "/api/v2/obproxy/clusters/{id}/obLinks/batchAdd", tag = "obproxy", operation_id = "addObLinks",
    params(("id" = i64, Path), DryRun),
    request_body(content = Vec<ObLinkParam>, description = "At least one. A proxy cluster has at most 100 links, those that it has already included."),
    responses(
        (status = 200, description = "No data."),
        (status = 400, description = "A field is missing or wrong, or there would be too many links.", body = ErrorEnvelope),
        (status = 404, description = "The proxy cluster does not exist.", body = ErrorEnvelope),
        (status = 409, description = "A name or id is linked already or given twice, a task has reserved the proxy cluster, or its work mode is RS_LIST and it has proxies or a link.", body = ErrorEnvelope),
    ),
)]
async fn add(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf(id): PathOf<i64>,
    dry_run: DryRun,
    JsonList(list): JsonList<ObLinkParam>,
) -> Result<NoData, ApiError> {
    if list.is_empty() {
        return Err(ApiError::invalid("obLinks", "is empty"));
    }
    check_count("obLinks", list.len(), MOST_LINKS)?;
    let asked = list.into_iter().map(ObLinkParam::checked).collect::<Result<Vec<_>, _>>()?;
    let mut transaction = state.store().begin().await?;
    let cluster = to_change(&mut transaction, id).await?;
    let added = missing(&cluster.ob_links, asked)?;
    if added.is_empty() {
        return Ok(NoData);
    }
    let links: Vec<ObLink> = cluster.ob_links.iter().chain(&added).cloned().collect();
    if links.len() > MOST_LINKS {
        let (present, count) = (cluster.ob_links.len(), links.len());
        let why =
            format_args!("a proxy cluster has at most {MOST_LINKS} links; it has {present} and would have {count}");
        return Err(ApiError::invalid("obLinks", why));
    }
    check_mode(&mut transaction, &cluster, links.len()).await?;
    obproxy::set_links(&mut transaction, id, &links, now_micros()).await?;
    let changes: Vec<_> = added.iter().map(|link| (format!("obproxy cluster {id}"), told(&cluster, link))).collect();
    requester.audit_all(&mut transaction, "obproxyCluster.addLink", &changes).await?;
    commit_unless(dry_run, transaction).await?;
    Ok(NoData)
}

/// Those that are not there yet. 409 if a name or an id is another link's.
fn missing(present: &[ObLink], asked: Vec<ObLink>) -> Result<Vec<ObLink>, ApiError> {
    let mut added: Vec<ObLink> = Vec::new();
    let mut taken = Vec::new();
    for link in asked {
        let ObLink { cluster_name, ob_cluster_id, .. } = &link;
        let same = |other: &&ObLink| other.cluster_name == *cluster_name || other.ob_cluster_id == *ob_cluster_id;
        let why = match (added.iter().find(same), present.iter().find(same)) {
            (Some(_), _) => "the name or the id is given twice".to_owned(),
            (None, Some(other)) if *other == link => continue,
            (None, Some(other)) => format!(
                "the name or the id is that of the link to {}, id {}, as {}",
                other.cluster_name, other.ob_cluster_id, other.username
            ),
            (None, None) => {
                added.push(link);
                continue;
            }
        };
        taken.push(SubError { field: format!("{cluster_name}:{ob_cluster_id}"), message: why });
    }
    if taken.is_empty() {
        return Ok(added);
    }
    let names: Vec<&str> = taken.iter().map(|error| error.field.as_str()).collect();
    let text = format_args!("links have names and ids of their own: {}", names.join(", "));
    Err(ApiError::conflict(code::NAME_TAKEN, text)
        .about("obLinks")
        .advise("nothing was changed; to change a link, remove it and add it again")
        .with_sub_errors(taken))
}

/// 409 if the proxies of an RS_LIST cluster would not notice, or it would have more than its one link.
async fn check_mode(connection: &mut AnyConnection, cluster: &Cluster, count: usize) -> Result<(), ApiError> {
    match cluster.work_mode {
        ClusterMode::ConfigUrl => return Ok(()),
        ClusterMode::RsList => {}
    }
    let Cluster { id, name, .. } = cluster;
    let refused =
        |text: String, advice: &str| Err(ApiError::conflict("ODP21010", text).about("obLinks").advise(advice));
    let proxies = obproxy::proxies_of(connection, &[*id]).await?.len();
    if proxies > 0 {
        let text = format!(
            "the work mode of {name} is RS_LIST: its {proxies} {} told the OceanBase cluster and its servers when they \
             were started, so the link cannot change while there are proxies",
            if proxies == 1 { "proxy was" } else { "proxies were" }
        );
        return refused(text, "create another OBProxy cluster for the other OceanBase cluster");
    }
    if count > 1 {
        let text = format!("the work mode of {name} is RS_LIST: it has one link to an OceanBase cluster, and no more");
        return refused(text, "remove its link first, or create another OBProxy cluster");
    }
    Ok(())
}

/// Removes the link to an OceanBase cluster.
#[utoipa::path(
    delete, path = "/api/v2/obproxy/clusters/{id}/obLinks/{obClusterName}", tag = "obproxy", operation_id = "deleteObLink",
    params(("id" = i64, Path), ("obClusterName" = String, Path), DryRun),
    responses(
        (status = 200, description = "No data."),
        (status = 404, description = "The proxy cluster or the link does not exist.", body = ErrorEnvelope),
        (status = 409, description = "A task has reserved the proxy cluster, or its work mode is RS_LIST and it has proxies.", body = ErrorEnvelope),
    ),
)]
async fn remove(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf((id, name)): PathOf<(i64, String)>,
    dry_run: DryRun,
) -> Result<NoData, ApiError> {
    let mut transaction = state.store().begin().await?;
    let mut cluster = to_change(&mut transaction, id).await?;
    let position = cluster.ob_links.iter().position(|link| link.cluster_name.as_str() == name);
    let Some(position) = position else {
        let text = format_args!("the OBProxy cluster {} has no link to {name:?}", cluster.name);
        return Err(ApiError::not_found("ODP21011", text)
            .advise(format!("see its links with: oblet obproxy show {}", cluster.name)));
    };
    let link = cluster.ob_links.remove(position);
    check_mode(&mut transaction, &cluster, cluster.ob_links.len()).await?;
    obproxy::set_links(&mut transaction, id, &cluster.ob_links, now_micros()).await?;
    let (object, detail) = (format!("obproxy cluster {id}"), told(&cluster, &link));
    requester.audit(&mut transaction, "obproxyCluster.removeLink", &object, &detail).await?;
    commit_unless(dry_run, transaction).await?;
    Ok(NoData)
}

/// In words, for the audit log.
fn told(cluster: &Cluster, link: &ObLink) -> String {
    format!("{}, to {}, id {}, as {}", cluster.name, link.cluster_name, link.ob_cluster_id, link.username)
}
