//! What a request names and what a report says, checked once.

use super::Refusal;
use crate::{
    api::frame::extract::Params,
    coordinator::store::root_servers::{ClusterRole, ObCluster, ObClusterId, RootServer, RootServers, ServerRole},
    steps::values::{ClusterName, InvalidValue, Port},
};
use axum::http::StatusCode;
use serde::Deserialize;
use std::{
    collections::{BTreeSet, HashSet},
    net::{IpAddr, SocketAddr},
};

/// Of both lists of a report. A list of the RootService has one server per zone.
const MOST_SERVERS: usize = 64;
/// By which a report may be ahead of this coordinator's clock, in microseconds. Observers' clocks differ by a fraction of
/// a second, or the cluster does not work; a report from far ahead would keep every later one out.
const MOST_AHEAD: i64 = 5 * 60 * 1_000_000;

/// The second answers several clusters of a name, a primary and its standbys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// The cluster that a request is about, as far as its parameters say (R8).
pub(super) struct Target {
    name: Option<ClusterName>,
    pub(super) id: Option<ObClusterId>,
    version: Version,
}

impl Target {
    pub(super) fn of(params: &Params) -> Result<Self, Refusal> {
        let name = first(params, ["ObRegion", "ObCluster"]);
        let name = name.map(|(key, text)| text.parse().map_err(|error| wrong(key, error))).transpose()?;
        let id = first(params, ["ObRegionId", "ObClusterId"]);
        let id = id.map(|(key, text)| text.parse().map_err(|_| wrong(key, format_args!("{text:?} is not a number"))));
        let id = cluster_id("ObClusterId", id.transpose()?)?;
        let version = match params.text("version") {
            None | Some("0" | "1") => Version::One,
            Some("2") => Version::Two,
            Some(other) => return Err(wrong("version", format_args!("{other:?} is neither 1 nor 2"))),
        };
        Ok(Self { name, id, version })
    }

    pub(super) fn name(&self) -> Result<&ClusterName, Refusal> {
        self.name.as_ref().ok_or_else(|| Refusal::bad("the parameter ObCluster or ObRegion is missing"))
    }

    /// Whether one cluster is asked for, and not all of the name (R9).
    pub(super) fn is_single(&self) -> bool {
        self.version == Version::One || self.id.is_some()
    }

    pub(super) fn to_forget(&self) -> Result<ObCluster, Refusal> {
        match (self.version, self.id) {
            (Version::Two, Some(id)) => Ok(ObCluster { name: self.name()?.clone(), id }),
            (Version::One, _) => Err(Refusal::bad("a cluster is removed with version=2 only")),
            (Version::Two, None) => Err(Refusal::bad("the parameter ObClusterId is missing")),
        }
    }
}

fn first<'a>(params: &'a Params, keys: [&'static str; 2]) -> Option<(&'static str, &'a str)> {
    keys.into_iter().find_map(|key| Some((key, params.text(key)?)))
}

fn wrong(place: &str, why: impl std::fmt::Display) -> Refusal {
    Refusal::bad(format!("{place}: {why}"))
}

/// 0 is as good as none.
fn cluster_id(place: &str, number: Option<i64>) -> Result<Option<ObClusterId>, Refusal> {
    let number = number.filter(|number| *number != 0);
    number.map(|number| ObClusterId::try_from(number).map_err(|error| wrong(place, error))).transpose()
}

/// What observers send (R3). Members that are not known are ignored.
#[derive(Deserialize)]
struct Body {
    #[serde(rename = "ObCluster")]
    cluster: Option<String>,
    #[serde(rename = "ObRegion")]
    region: Option<String>,
    #[serde(rename = "ObClusterId")]
    cluster_id: Option<i64>,
    #[serde(rename = "ObRegionId")]
    region_id: Option<i64>,
    #[serde(rename = "Type")]
    role: Option<String>,
    timestamp: Option<i64>,
    #[serde(rename = "RsList", default)]
    servers: Vec<Server>,
    #[serde(rename = "ReadonlyRsList", default)]
    readonly_servers: Vec<Server>,
}

#[derive(Deserialize)]
struct Server {
    address: String,
    role: String,
    sql_port: i64,
}

/// A report whose cluster is not looked up yet.
pub(super) struct Report {
    pub(super) name: ClusterName,
    /// None if it is of version 1 and does not say.
    id: Option<ObClusterId>,
    role: ClusterRole,
    servers: Vec<RootServer>,
    readonly_servers: Vec<RootServer>,
    reported_at: i64,
}

impl Report {
    /// `now` in microseconds since 1970.
    pub(super) fn read(target: &Target, body: &[u8], now: i64) -> Result<Self, Refusal> {
        // serde would take an array for the members in their order.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(Refusal::bad("the body must be a JSON object"));
        }
        let body: Body = serde_json::from_slice(body).map_err(|error| wrong("the body", error))?;
        let mut names = Vec::new();
        for (place, name) in [("ObRegion", &body.region), ("ObCluster", &body.cluster)] {
            let name = name.as_ref().map(|name| name.parse::<ClusterName>().map_err(|error| wrong(place, error)));
            names.extend(name.transpose()?);
        }
        let name = only("names of a cluster", target.name.iter().chain(&names).cloned())?;
        let name = name.ok_or_else(|| Refusal::bad("neither ObCluster nor ObRegion names the cluster"))?;
        let mut ids = Vec::new();
        for (place, id) in [("ObRegionId", body.region_id), ("ObClusterId", body.cluster_id)] {
            ids.extend(cluster_id(place, id)?);
        }
        let id = only("ids of a cluster", target.id.into_iter().chain(ids))?;
        let role = match body.role.as_deref().filter(|role| !role.is_empty()) {
            Some(role) => role.parse().map_err(|error| wrong("Type", error))?,
            // So obproxy takes it (G7).
            None if target.version == Version::One => ClusterRole::Primary,
            None => return Err(Refusal::bad("Type is missing")),
        };
        let reported_at = body.timestamp.ok_or_else(|| Refusal::bad("timestamp is missing"))?;
        if reported_at <= 0 || reported_at > now.saturating_add(MOST_AHEAD) {
            let why = format_args!(
                "{reported_at} is not a time in microseconds since 1970, or is more than five minutes ahead of the \
                 coordinator's clock, which says {now}"
            );
            return Err(wrong("timestamp", why));
        }
        let count = body.servers.len().saturating_add(body.readonly_servers.len());
        if count > MOST_SERVERS {
            return Err(Refusal::bad(format!("a report has at most {MOST_SERVERS} servers; this one has {count}")));
        }
        if body.servers.is_empty() {
            return Err(Refusal::bad("RsList has no server"));
        }
        let mut seen = HashSet::new();
        Ok(Self {
            name,
            id,
            role,
            servers: servers("RsList", &body.servers, &mut seen)?,
            readonly_servers: servers("ReadonlyRsList", &body.readonly_servers, &mut seen)?,
            reported_at,
        })
    }

    /// Refuses a cluster that nobody has heard of: neither linked to nor stored.
    pub(super) fn of_a_known_cluster(
        self,
        reporter: IpAddr,
        stored: &[RootServers],
        links: &BTreeSet<i64>,
    ) -> Result<RootServers, Refusal> {
        let Self { name, id, role, servers, readonly_servers, reported_at } = self;
        let links = links.iter().filter_map(|id| ObClusterId::try_from(*id).ok());
        let known: BTreeSet<ObClusterId> = stored.iter().map(|list| list.cluster.id).chain(links).collect();
        let id = match (id, known.first()) {
            (Some(id), _) => id,
            (None, Some(only)) if known.len() == 1 => *only,
            (None, _) => {
                return Err(Refusal::bad("ObClusterId is missing, and the name alone does not tell the cluster"));
            }
        };
        let cluster = ObCluster { name, id };
        if !known.contains(&id) {
            let ObCluster { name, id } = &cluster;
            let text = format!(
                "no proxy cluster links to the {cluster}: create one whose obLinks have clusterName {name} and \
                 obClusterId {id}"
            );
            return Err(Refusal::new(StatusCode::FORBIDDEN, text));
        }
        Ok(RootServers { cluster, role, servers, readonly_servers, reported_at, reporter })
    }
}

fn servers(list: &str, given: &[Server], seen: &mut HashSet<SocketAddr>) -> Result<Vec<RootServer>, Refusal> {
    let mut servers = Vec::with_capacity(given.len());
    for (number, Server { address, role, sql_port }) in given.iter().enumerate() {
        let place = |member: &str| format!("{list}[{number}].{member}");
        let server = RootServer {
            address: server_address(address).map_err(|error| wrong(&place("address"), error))?,
            role: role.parse::<ServerRole>().map_err(|error| wrong(&place("role"), error))?,
            sql_port: Port::try_from(*sql_port).map_err(|error| wrong(&place("sql_port"), error))?,
        };
        if !seen.insert(server.address) {
            return Err(wrong(&place("address"), format_args!("{} is named twice", server.address)));
        }
        servers.push(server);
    }
    Ok(servers)
}

fn server_address(text: &str) -> Result<SocketAddr, InvalidValue> {
    let shown: String = text.chars().take(80).collect();
    let address: SocketAddr =
        text.parse().map_err(|_| InvalidValue(format!("{shown:?} is not allowed: a server is given as ip:port")))?;
    Port::try_from(i64::from(address.port()))?;
    // Without a scope, which means something on one host only.
    let ip = address.ip().to_canonical();
    if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::from([255; 4]) {
        return Err(InvalidValue(format!("{shown:?} is not allowed: it is not the address of a server")));
    }
    Ok(SocketAddr::new(ip, address.port()))
}

/// What all say that say anything.
fn only<T: PartialEq + std::fmt::Display>(
    what: &str,
    given: impl IntoIterator<Item = T>,
) -> Result<Option<T>, Refusal> {
    let mut given = given.into_iter();
    let first = given.next();
    match given.find(|other| Some(other) != first.as_ref()) {
        None => Ok(first),
        Some(other) => {
            let first = first.map_or_else(String::new, |first| first.to_string());
            Err(Refusal::bad(format!("two different {what} are given: {first} and {other}")))
        }
    }
}
