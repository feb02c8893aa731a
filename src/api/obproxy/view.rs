//! Proxy clusters on the wire.

use super::install::config_url;
use crate::{
    api::frame::{envelope::ocp_time, words::OperateStatus},
    coordinator::store::{
        StoreError,
        host::{self, places},
        obproxy::{self, Cluster, ClusterMode, Obproxy, ObproxyStatus},
        user,
    },
    steps::values::{Parameter, Port},
};
use serde::Serialize;
use sqlx::AnyConnection;
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};
use utoipa::ToSchema;

/// OCP's obproxyCluster. Responses never contain passwords.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObproxyClusterView {
    id: i64,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    /// CONFIG_URL or RS_LIST.
    #[schema(value_type = ClusterMode)]
    work_mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_url: Option<String>,
    parameter_version: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    creator_id: Option<i64>,
    creator_name: String,
    create_time: String,
    update_time: String,
    ob_links: Vec<ObLinkView>,
    startup_parameters: Vec<ParameterView>,
    parameters: Vec<ParameterView>,
    versions: Vec<VersionView>,
    /// Number of proxies in each data centre. Hosts without a data centre are not counted.
    topo: Vec<TopoView>,
    obproxies: Vec<ObproxyView>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ObLinkView {
    cluster_name: String,
    ob_cluster_id: i64,
    username: String,
}

#[derive(Serialize, ToSchema)]
struct ParameterView {
    name: String,
    value: String,
}

impl From<Parameter> for ParameterView {
    fn from(parameter: Parameter) -> Self {
        Self { name: parameter.name.into(), value: parameter.value.into() }
    }
}

#[derive(Serialize, ToSchema)]
struct VersionView {
    version: String,
    count: usize,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TopoView {
    idc_name: String,
    count: usize,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ObproxyView {
    id: i64,
    cluster_id: i64,
    host_id: i64,
    /// Data centre of the host, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    idc_name: Option<String>,
    ip: String,
    sql_port: u16,
    exporter_port: u16,
    /// Omitted if the version has no RPC port.
    #[serde(skip_serializing_if = "Option::is_none")]
    rpc_port: Option<u16>,
    #[schema(example = "1.9.1.1-1919579")]
    version: String,
    architecture: String,
    /// CREATING, RUNNING, RESTARTING, UPGRADING, REFRESHING, DELETING or UNAVAILABLE.
    #[schema(value_type = ObproxyStatus)]
    status: &'static str,
    /// OPERATING while a task changes the proxy, otherwise NORMAL.
    #[schema(value_type = OperateStatus)]
    operate_status: &'static str,
    parameter_version: i64,
}

/// In the order of the clusters; with as many queries for many of them as for one.
pub(super) async fn views(
    connection: &mut AnyConnection,
    list: Vec<Cluster>,
    config_url_base: &str,
) -> Result<Vec<ObproxyClusterView>, StoreError> {
    let ids: Vec<i64> = list.iter().map(|cluster| cluster.id).collect();
    let proxies = obproxy::proxies_of(connection, &ids).await?;
    let addresses = host::addresses(connection, proxies.iter().map(|proxy| proxy.host_id)).await?;
    let hosts: Vec<i64> = proxies.iter().map(|proxy| proxy.host_id).collect();
    let idcs = places::idc_names(connection, hosts).await?;
    let creators = user::ids(connection, list.iter().map(|cluster| cluster.creator.as_str())).await?;
    let mut by_cluster: HashMap<i64, Vec<Obproxy>> = HashMap::new();
    for proxy in proxies {
        by_cluster.entry(proxy.cluster_id).or_default().push(proxy);
    }
    let view = |cluster: Cluster| {
        let proxies = by_cluster.remove(&cluster.id).unwrap_or_default();
        let creator = creators.get(&cluster.creator).copied();
        view(cluster, creator, proxies, (&addresses, &idcs), config_url_base)
    };
    Ok(list.into_iter().map(view).collect())
}

fn view(
    cluster: Cluster,
    creator_id: Option<i64>,
    proxies: Vec<Obproxy>,
    (addresses, idcs): (&HashMap<i64, IpAddr>, &HashMap<i64, String>),
    config_url_base: &str,
) -> ObproxyClusterView {
    let mut versions: BTreeMap<String, usize> = BTreeMap::new();
    let mut topo: BTreeMap<&str, usize> = BTreeMap::new();
    for idc in proxies.iter().filter_map(|proxy| idcs.get(&proxy.host_id)) {
        *topo.entry(idc).or_default() += 1;
    }
    for proxy in &proxies {
        *versions.entry(proxy.version.version_build()).or_default() += 1;
    }
    let link = |link: obproxy::ObLink| ObLinkView {
        cluster_name: link.cluster_name.into(),
        ob_cluster_id: link.ob_cluster_id,
        username: link.username,
    };
    ObproxyClusterView {
        id: cluster.id,
        config_url: match cluster.work_mode {
            ClusterMode::ConfigUrl => Some(config_url(config_url_base, cluster.name.as_str())),
            ClusterMode::RsList => None,
        },
        name: cluster.name.into(),
        address: cluster.address,
        port: cluster.port,
        work_mode: cluster.work_mode.as_str(),
        parameter_version: cluster.parameter_version,
        creator_id,
        creator_name: cluster.creator,
        create_time: ocp_time(cluster.created_at),
        update_time: ocp_time(cluster.updated_at),
        ob_links: cluster.ob_links.into_iter().map(link).collect(),
        startup_parameters: cluster.startup_parameters.into_iter().map(Into::into).collect(),
        parameters: cluster.parameters.into_iter().map(Into::into).collect(),
        versions: versions.into_iter().map(|(version, count)| VersionView { version, count }).collect(),
        topo: topo.into_iter().map(|(name, count)| TopoView { idc_name: name.to_owned(), count }).collect(),
        obproxies: proxies.into_iter().map(|proxy| proxy_view(proxy, addresses, idcs)).collect(),
    }
}

fn proxy_view(proxy: Obproxy, addresses: &HashMap<i64, IpAddr>, idcs: &HashMap<i64, String>) -> ObproxyView {
    ObproxyView {
        id: proxy.id,
        cluster_id: proxy.cluster_id,
        host_id: proxy.host_id,
        idc_name: idcs.get(&proxy.host_id).cloned(),
        ip: addresses.get(&proxy.host_id).map(ToString::to_string).unwrap_or_default(),
        sql_port: proxy.sql_port.get(),
        exporter_port: proxy.exporter_port.get(),
        rpc_port: proxy.rpc_port.map(Port::get),
        version: proxy.version.version_build(),
        architecture: proxy.architecture,
        status: proxy.status.as_str(),
        operate_status: match proxy.status {
            ObproxyStatus::Running | ObproxyStatus::Unavailable => "NORMAL",
            ObproxyStatus::Creating
            | ObproxyStatus::Restarting
            | ObproxyStatus::Upgrading
            | ObproxyStatus::Refreshing
            | ObproxyStatus::Deleting => "OPERATING",
        },
        parameter_version: proxy.parameter_version,
    }
}
