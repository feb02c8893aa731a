//! What creating a proxy cluster and adding proxies to one share: which hosts, which package, and whether they fit.

use crate::{
    api::{
        frame::{
            error::{ApiError, code},
            state::ApiState,
        },
        host::absent,
    },
    coordinator::store::{
        host::{self, Host, HostStatus},
        locks,
        obproxy::{self, Cluster, ClusterMode, NewObproxy, Obproxy},
        package::{self, Package, PackageKind},
    },
    operations::{NewProxy, ObjectKind, ObjectLock, ObproxyInstall},
    steps::{
        DEFAULT_RPC_PORT, ObproxyVersion, StartObproxy, WorkMode,
        values::{InvalidValue, PackageRef, Port, ServerAddress},
    },
};
use axum::http::StatusCode;
use serde::Deserialize;
use sqlx::AnyConnection;
use std::collections::{HashMap, HashSet};
use utoipa::ToSchema;

/// Start-up parameter that lists the servers of an RS_LIST cluster, as obproxy's own option does.
const SERVER_LIST: &str = "rootservice_list";
const MAX_HOSTS: usize = 200;

/// Which proxies are installed on which hosts. If there are hosts, `sqlPort`, `exporterPort` and `version` are required.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct InstallParam {
    #[schema(max_items = 200)]
    pub(super) host_ids: Vec<i64>,
    /// 1025 to 65535.
    #[schema(value_type = Option<u16>, minimum = 1025, maximum = 65535, example = 2883)]
    sql_port: Option<Port>,
    /// 1025 to 65535. OCP uses the name `exportPort` when it creates a cluster; both names are accepted.
    #[serde(alias = "exportPort")]
    #[schema(value_type = Option<u16>, minimum = 1025, maximum = 65535, example = 2884)]
    exporter_port: Option<Port>,
    /// 1025 to 65535; default 2885. obproxy older than 4.3 has no RPC port.
    #[schema(value_type = Option<u16>, minimum = 1025, maximum = 65535, example = 2885)]
    rpc_port: Option<Port>,
    /// File name of the package, or OCP's short name.
    #[schema(max_length = 191, example = "obproxy-1.9.1.1-1919579.el7.x86_64.rpm")]
    version: Option<String>,
    /// Of batchAdd only: OCP's name for the header `Idempotency-Key`, 8 to 64 characters.
    #[schema(min_length = 8, max_length = 64)]
    pub(super) client_token: Option<String>,
}

/// An installation whose hosts and package exist and fit together.
pub(super) struct Installation {
    hosts: Vec<Host>,
    package: Package,
    ports: Ports,
}

/// Those of each proxy of a request. No two of them are the same.
struct Ports {
    sql: Port,
    exporter: Port,
    rpc: Option<Port>,
}

impl InstallParam {
    /// Finds every reason to refuse before anything is written.
    pub(super) async fn check(&self, connection: &mut AnyConnection) -> Result<Installation, ApiError> {
        let sql_port = self.sql_port.ok_or_else(|| required("sqlPort"))?;
        let exporter_port = self.exporter_port.ok_or_else(|| required("exporterPort"))?;
        let version = self.version.as_deref().ok_or_else(|| required("version"))?;
        if self.host_ids.is_empty() || self.host_ids.len() > MAX_HOSTS {
            return Err(ApiError::invalid("hostIds", format_args!("1 to {MAX_HOSTS} hosts are named at a time")));
        }
        let mut seen = HashSet::new();
        if let Some(twice) = self.host_ids.iter().find(|id| !seen.insert(**id)) {
            return Err(ApiError::invalid("hostIds", format_args!("the host {twice} is named twice")));
        }
        check_version(version)?;

        let mut found = host::by_ids(connection, &self.host_ids).await?;
        let mut hosts = Vec::with_capacity(self.host_ids.len());
        for id in &self.host_ids {
            let host = found.remove(id).ok_or_else(|| absent(*id).about("hostIds"))?;
            if host.status == HostStatus::New {
                return Err(unprepared(connection, &host).await?);
            }
            hosts.push(host);
        }
        let package = choose_package(connection, version, &hosts).await?;
        let rpc = self.rpc_port(&package.package)?;
        let ports = Ports { sql: sql_port, exporter: exporter_port, rpc };
        ports.check_different(self.rpc_port.is_none())?;
        let mut proxies: HashMap<i64, Vec<Obproxy>> = HashMap::new();
        for proxy in obproxy::proxies_on(connection, &self.host_ids).await? {
            proxies.entry(proxy.host_id).or_default().push(proxy);
        }
        for host in &hosts {
            ports.check_free(host, proxies.get(&host.id).map_or(&[], Vec::as_slice))?;
        }
        Ok(Installation { hosts, package, ports })
    }

    fn rpc_port(&self, package: &PackageRef) -> Result<Option<Port>, ApiError> {
        match (ObproxyVersion::of(package).rpc_port, self.rpc_port) {
            (true, None) => {
                let default = Port::try_from(i64::from(DEFAULT_RPC_PORT));
                Ok(Some(default.map_err(|error| ApiError::internal(&error))?))
            }
            (false, Some(_)) => {
                let why = format_args!("obproxy {} has no port for RPC", package.version());
                Err(ApiError::invalid("rpcPort", why).advise("leave rpcPort out"))
            }
            (true | false, given) => Ok(given),
        }
    }
}

impl Ports {
    fn named(&self) -> impl Iterator<Item = (&'static str, Port)> {
        [("sqlPort", self.sql), ("exporterPort", self.exporter)]
            .into_iter()
            .chain(self.rpc.map(|port| ("rpcPort", port)))
    }

    fn check_different(&self, rpc_by_default: bool) -> Result<(), ApiError> {
        let mut seen = HashMap::new();
        for (member, port) in self.named() {
            if let Some(other) = seen.insert(port, member) {
                let error = ApiError::invalid(member, format_args!("{port} is the {other} already"));
                // Or the error would be about a member that the request does not have.
                return Err(if member == "rpcPort" && rpc_by_default {
                    error.advise(format!("choose another {other}, or give an rpcPort, which is {port} if it is absent"))
                } else {
                    error
                });
            }
        }
        Ok(())
    }

    /// Asks what is known of the host; what else listens there, the first step of the task finds.
    fn check_free(&self, host: &Host, proxies: &[Obproxy]) -> Result<(), ApiError> {
        let taken = |text: std::fmt::Arguments| {
            ApiError::conflict("ODP21116", text).about("hostIds").advise("choose other ports")
        };
        let agent = [host.agent_port, host.metrics_port];
        if let Some((_, port)) = self.named().find(|(_, port)| agent.contains(&port.get())) {
            return Err(taken(format_args!("the agent has port {port} of host {}", host.id)));
        }
        for proxy in proxies {
            if let Some(port) = proxy.ports().find(|port| self.named().any(|(_, own)| own == *port)) {
                let Obproxy { id, status, .. } = proxy;
                return Err(taken(format_args!("proxy {id} ({status}) has port {port} of host {}", host.id)));
            }
        }
        Ok(())
    }
}

fn required(member: &str) -> ApiError {
    ApiError::invalid(member, "is required")
}

async fn unprepared(connection: &mut AnyConnection, host: &Host) -> Result<ApiError, ApiError> {
    let Host { id, inner_ip, status, .. } = host;
    let (why, advice) = match locks::holder(connection, &ObjectLock::exclusive(ObjectKind::Host, *id)).await? {
        Some(holder) => (holder.to_string(), "wait until that task is SUCCESSFUL; if it failed, see why and retry it"),
        None => ("no task prepares it".into(), "delete the host and add it again"),
    };
    let text = format_args!("the host {id} ({inner_ip}) is {status} and cannot be used yet: {why}");
    Ok(ApiError::conflict("CMP07006", text).about("hostIds").advise(advice))
}

/// Neither form of a name has room for a path or a command.
fn check_version(version: &str) -> Result<(), ApiError> {
    let short = |text: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._+~^-".contains(c);
        !text.is_empty() && text.len() <= 191 && text.chars().all(fits) && !text.contains("..")
    };
    match version.parse::<PackageRef>() {
        Ok(_) => Ok(()),
        Err(_) if short(version) => Ok(()),
        Err(error) => Err(ApiError::new(StatusCode::BAD_REQUEST, "PKG10016", error).about("version")),
    }
}

async fn choose_package(connection: &mut AnyConnection, version: &str, hosts: &[Host]) -> Result<Package, ApiError> {
    let found = package::by_name(connection, version).await?;
    if found.is_empty() {
        return Err(ApiError::not_found("PKG10014", format_args!("the package {version} does not exist"))
            .about("version")
            .advise("upload the package first"));
    }
    if let Some(other) = found.iter().find(|package| package.kind != PackageKind::Obproxy) {
        let text = format_args!("{} is a package of type {}, not {}", other.package, other.kind, PackageKind::Obproxy);
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "PKG10013", text).about("version"));
    }
    let misfit = |package: &Package| {
        let architecture = package.package.architecture();
        hosts.iter().find(|host| architecture != "noarch" && architecture != host.details.architecture)
    };
    let mut fitting = found.iter().filter(|package| misfit(package).is_none());
    match (fitting.next(), fitting.next()) {
        (Some(package), None) => Ok(package.clone()),
        (Some(_), Some(_)) => Err(ApiError::invalid(
            "version",
            format_args!("{version} names several packages: give the whole file name"),
        )),
        (None, _) => {
            let host = found.iter().find_map(misfit);
            let (id, own) = host.map_or((0, ""), |host| (host.id, host.details.architecture.as_str()));
            let text = format_args!("the architecture of host {id} is {own}, which is not that of {version}");
            Err(ApiError::conflict("CMP07025", text)
                .about("version")
                .advise(format!("name a package for {own}; see them with: oblet package list")))
        }
    }
}

impl Installation {
    /// Writes the proxies, which begin as CREATING, and answers what their tasks need.
    pub(super) async fn write(
        self,
        state: &ApiState,
        connection: &mut AnyConnection,
        cluster: &Cluster,
    ) -> Result<(ObproxyInstall, Vec<NewProxy>), ApiError> {
        let new = |host: &Host| NewObproxy {
            cluster_id: cluster.id,
            host_id: host.id,
            sql_port: self.ports.sql,
            exporter_port: self.ports.exporter,
            rpc_port: self.ports.rpc,
            version: self.package.package.clone(),
            parameter_version: cluster.parameter_version,
        };
        let new: Vec<_> = self.hosts.iter().map(new).collect();
        let proxies = obproxy::insert_proxies(connection, &new).await?;
        let proxies = proxies.iter().map(|proxy| NewProxy { host_id: proxy.host_id, server_id: proxy.id }).collect();
        let Ports { sql, exporter, rpc } = self.ports;
        let install = ObproxyInstall {
            cluster_id: cluster.id,
            parameter_version: cluster.parameter_version,
            start: start(state, cluster, self.package.package, [sql, exporter], rpc)?,
            parameters: cluster.parameters.clone(),
            sha256: self.package.sha256,
            disk_bytes: u64::try_from(self.package.installed_bytes).unwrap_or(0),
        };
        Ok((install, proxies))
    }
}

/// How a proxy of the cluster is started.
pub(super) fn start(
    state: &ApiState,
    cluster: &Cluster,
    package: PackageRef,
    [sql_port, exporter_port]: [Port; 2],
    rpc_port: Option<Port>,
) -> Result<StartObproxy, ApiError> {
    // Only the link of a cluster can be missing by now, because it can be removed.
    let work_mode = work_mode(cluster, &state.settings.config_url_base).map_err(|error| {
        let Cluster { name, .. } = cluster;
        ApiError::conflict("ODP21010", format_args!("the OBProxy cluster {name} takes no proxies: {error}"))
            .advise(format!("add its link first: oblet obproxy add-link {name} NAME:OB_CLUSTER_ID"))
    })?;
    let startup = cluster.startup_parameters.iter().filter(|parameter| parameter.name.as_str() != SERVER_LIST);
    Ok(StartObproxy {
        package,
        app_name: cluster.name.clone(),
        sql_port,
        exporter_port,
        rpc_port,
        work_mode,
        startup_parameters: startup.cloned().collect(),
    })
}

/// Under which the proxies of a cluster fetch their configuration. Holds a `?`, because obproxy appends to it.
pub(super) fn config_url(base: &str, cluster: &str) -> String {
    format!("{base}/services?Action=GetObProxyConfig&User_ID=alibaba&UID=admin&ObproxyClusterName={cluster}")
}

fn work_mode(cluster: &Cluster, config_url_base: &str) -> Result<WorkMode, InvalidValue> {
    match cluster.work_mode {
        ClusterMode::ConfigUrl => Ok(WorkMode::ConfigUrl { url: config_url(config_url_base, cluster.name.as_str()) }),
        ClusterMode::RsList => {
            let [link] = cluster.ob_links.as_slice() else {
                return Err(InvalidValue("an RS_LIST cluster has exactly one link to an OceanBase cluster".into()));
            };
            let list = cluster.startup_parameters.iter().find(|parameter| parameter.name.as_str() == SERVER_LIST);
            let list = list.map_or("", |parameter| parameter.value.as_str());
            let servers: Vec<ServerAddress> =
                list.split(';').filter(|text| !text.is_empty()).map(str::parse).collect::<Result<_, _>>()?;
            if servers.is_empty() {
                let text =
                    format!("an RS_LIST cluster has a start-up parameter {SERVER_LIST}, such as \"192.0.2.1:2881\"");
                return Err(InvalidValue(text));
            }
            Ok(WorkMode::RsList { cluster_name: link.cluster_name.clone(), servers })
        }
    }
}

/// Refuses a cluster whose mode and parameters contradict each other.
pub(super) fn check_mode(cluster: &Cluster) -> Result<(), ApiError> {
    let has_list = cluster.startup_parameters.iter().any(|parameter| parameter.name.as_str() == SERVER_LIST);
    if has_list && cluster.work_mode == ClusterMode::ConfigUrl {
        return Err(ApiError::invalid("startupParameters", format_args!("{SERVER_LIST} belongs to RS_LIST only")));
    }
    work_mode(cluster, "").map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, code::INVALID_PARAMETER, format_args!("workMode: {error}"))
            .about("workMode")
    })?;
    Ok(())
}
