//! The servers that an OceanBase cluster is reached by, as it reports them to the config service.
//!
//!  1. A cluster has one list, that of the report with the newest timestamp. [`record`] looks and writes in one turn, so
//!     coordinators that share a store agree about it.
//!  2. A report that says what is stored writes nothing: observers repeat theirs every ten minutes. Its timestamp is
//!     not kept either. So if a list changes and changes back, and the report of the change arrives after that of the
//!     change back, it counts until the next report, at most ten minutes.
//!  3. There are at most [`MOST_CLUSTERS`] lists.

use super::{
    StoreError,
    columns::{Cause, decode, encode, parse},
    locks, now_micros,
};
use crate::{
    graph::wire_enum,
    steps::values::{ClusterName, InvalidValue, Port},
};
use serde::{Deserialize, Serialize};
use sqlx::{AnyConnection, Row as _, any::AnyRow};
use std::{
    fmt,
    net::{AddrParseError, IpAddr, SocketAddr},
};

/// Clusters whose servers are kept.
pub const MOST_CLUSTERS: i64 = 1000;

wire_enum! {
    /// A standby follows a primary, of which it has the name but not the id.
    ClusterRole { Primary => "PRIMARY", Standby => "STANDBY" }
}

wire_enum! {
    /// Of a server in the RootService.
    ServerRole { Leader => "LEADER", Follower => "FOLLOWER" }
}

/// Id of an OceanBase cluster: 1 to 4294901759 (`ob_max_cluster_id` in the source of observer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObClusterId(i64);

impl ObClusterId {
    pub fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for ObClusterId {
    type Error = InvalidValue;

    fn try_from(number: i64) -> Result<Self, InvalidValue> {
        if (1..=4_294_901_759).contains(&number) {
            return Ok(Self(number));
        }
        Err(InvalidValue(format!("{number} is not allowed: the id of a cluster lies between 1 and 4294901759")))
    }
}

impl fmt::Display for ObClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What tells an OceanBase cluster from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObCluster {
    pub name: ClusterName,
    pub id: ObClusterId,
}

impl fmt::Display for ObCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OceanBase cluster {} ({})", self.name, self.id)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootServer {
    /// Address and RPC port.
    pub address: SocketAddr,
    pub sql_port: Port,
    pub role: ServerRole,
}

/// A report of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootServers {
    pub cluster: ObCluster,
    pub role: ClusterRole,
    pub servers: Vec<RootServer>,
    /// Servers of zones that are read only.
    pub readonly_servers: Vec<RootServer>,
    /// Microseconds since 1970, by the clock of the observer.
    pub reported_at: i64,
    /// Who sent it.
    pub reporter: IpAddr,
}

impl RootServers {
    /// Whether a proxy would learn the same from both. The order of servers says nothing.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let sorted = |servers: &[RootServer]| {
            let mut servers = servers.to_vec();
            servers.sort_by_key(|server| server.address);
            servers
        };
        self.role == other.role
            && sorted(&self.servers) == sorted(&other.servers)
            && sorted(&self.readonly_servers) == sorted(&other.readonly_servers)
    }

    pub fn all_servers(&self) -> impl Iterator<Item = &RootServer> {
        self.servers.iter().chain(&self.readonly_servers)
    }
}

/// For logs and the audit log: `PRIMARY 192.0.2.1:2882 (SQL 2881) LEADER, 192.0.2.2:2882 (SQL 2881) FOLLOWER`
impl fmt::Display for RootServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.role.as_str())?;
        let full = self.servers.iter().map(|server| (server, ""));
        let readonly = self.readonly_servers.iter().map(|server| (server, ", read only"));
        for (number, (RootServer { address, sql_port, role }, kind)) in full.chain(readonly).enumerate() {
            let comma = if number == 0 { " " } else { ", " };
            write!(f, "{comma}{address} (SQL {sql_port}{kind}) {role}")?;
        }
        Ok(())
    }
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// It counts from now on.
    Stored { before: Option<RootServers> },
    /// It says what is stored.
    Unchanged,
    /// A newer one is stored, of this timestamp.
    Stale { newest: i64 },
    /// It is the first of its cluster, and there are [`MOST_CLUSTERS`].
    Full,
}

/// Keeps a report if it is to be kept.
pub async fn record(connection: &mut AnyConnection, report: &RootServers) -> Result<Recorded, StoreError> {
    locks::wait_for_turn(connection).await?;
    let before = get(connection, &report.cluster).await?;
    match &before {
        Some(stored) if stored.says_the_same(report) => return Ok(Recorded::Unchanged),
        Some(stored) if stored.reported_at > report.reported_at => {
            return Ok(Recorded::Stale { newest: stored.reported_at });
        }
        Some(_) => update(connection, report).await?,
        None => {
            let count = sqlx::query("SELECT COUNT(*) FROM root_server_lists").fetch_one(&mut *connection).await?;
            if count.try_get::<i64, _>(0)? >= MOST_CLUSTERS {
                return Ok(Recorded::Full);
            }
            insert(connection, report).await?;
        }
    }
    Ok(Recorded::Stored { before })
}

async fn insert(connection: &mut AnyConnection, report: &RootServers) -> Result<(), StoreError> {
    let now = now_micros();
    sqlx::query(
        "INSERT INTO root_server_lists (cluster_name, ob_cluster_id, cluster_role, servers, readonly_servers, reported_at, \
         reporter, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(report.cluster.name.as_str())
    .bind(report.cluster.id.get())
    .bind(report.role.as_str())
    .bind(encode(&report.servers)?)
    .bind(encode(&report.readonly_servers)?)
    .bind(report.reported_at)
    .bind(report.reporter.to_string())
    .bind(now)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

async fn update(connection: &mut AnyConnection, report: &RootServers) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE root_server_lists SET cluster_role = ?, servers = ?, readonly_servers = ?, reported_at = ?, reporter = ?, \
         updated_at = ? WHERE cluster_name = ? AND ob_cluster_id = ?",
    )
    .bind(report.role.as_str())
    .bind(encode(&report.servers)?)
    .bind(encode(&report.readonly_servers)?)
    .bind(report.reported_at)
    .bind(report.reporter.to_string())
    .bind(now_micros())
    .bind(report.cluster.name.as_str())
    .bind(report.cluster.id.get())
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets the servers of a cluster, and answers what they were.
pub async fn delete(connection: &mut AnyConnection, cluster: &ObCluster) -> Result<Option<RootServers>, StoreError> {
    locks::wait_for_turn(connection).await?;
    let before = get(connection, cluster).await?;
    if before.is_some() {
        sqlx::query("DELETE FROM root_server_lists WHERE cluster_name = ? AND ob_cluster_id = ?")
            .bind(cluster.name.as_str())
            .bind(cluster.id.get())
            .execute(connection)
            .await?;
    }
    Ok(before)
}

pub async fn get(connection: &mut AnyConnection, cluster: &ObCluster) -> Result<Option<RootServers>, StoreError> {
    let row = sqlx::query("SELECT * FROM root_server_lists WHERE cluster_name = ? AND ob_cluster_id = ?")
        .bind(cluster.name.as_str())
        .bind(cluster.id.get())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(read).transpose()
}

/// The clusters of a name, a primary and its standbys, in the order of their ids.
pub async fn of_name(connection: &mut AnyConnection, name: &ClusterName) -> Result<Vec<RootServers>, StoreError> {
    let rows = sqlx::query("SELECT * FROM root_server_lists WHERE cluster_name = ? ORDER BY ob_cluster_id")
        .bind(name.as_str())
        .fetch_all(connection)
        .await?;
    rows.iter().map(read).collect()
}

/// The names of all clusters that have reported, in alphabetical order.
pub async fn names(connection: &mut AnyConnection) -> Result<Vec<String>, StoreError> {
    let rows = sqlx::query("SELECT DISTINCT cluster_name FROM root_server_lists ORDER BY cluster_name");
    rows.fetch_all(connection).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

fn read(row: &AnyRow) -> Result<RootServers, StoreError> {
    let id: i64 = row.try_get("ob_cluster_id")?;
    let damaged = |source: Cause| StoreError::Damaged { table: "root_server_lists", id, source };
    let text = |column: &str| row.try_get::<String, _>(column);
    let name = text("cluster_name")?.parse().map_err(|error| damaged(Box::new(error)))?;
    let id = ObClusterId::try_from(id).map_err(|error| damaged(Box::new(error)))?;
    Ok(RootServers {
        cluster: ObCluster { name, id },
        role: parse(row, "cluster_role").map_err(damaged)?,
        servers: decode(&text("servers")?).map_err(damaged)?,
        readonly_servers: decode(&text("readonly_servers")?).map_err(damaged)?,
        reported_at: row.try_get("reported_at")?,
        reporter: text("reporter")?.parse().map_err(|error: AddrParseError| damaged(error.into()))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::store::Store;

    fn server(address: &str, role: ServerRole) -> RootServer {
        RootServer { address: address.parse().unwrap(), sql_port: Port::try_from(2881).unwrap(), role }
    }

    fn report(name: &str, id: i64, reported_at: i64) -> RootServers {
        RootServers {
            cluster: ObCluster { name: name.parse().unwrap(), id: ObClusterId::try_from(id).unwrap() },
            role: ClusterRole::Primary,
            servers: vec![
                server("192.0.2.1:2882", ServerRole::Leader),
                server("[2001:db8::2]:2882", ServerRole::Follower),
            ],
            readonly_servers: vec![server("192.0.2.3:2882", ServerRole::Follower)],
            reported_at,
            reporter: "192.0.2.1".parse().unwrap(),
        }
    }

    async fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.db")).await.unwrap();
        (directory, store)
    }

    #[tokio::test]
    async fn the_newest_report_counts_and_one_that_says_the_same_is_not_written() {
        let (_directory, store) = store().await;
        let mut transaction = store.begin().await.unwrap();
        let first = report("ob", 1, 1000);
        assert_eq!(record(&mut transaction, &first).await.unwrap(), Recorded::Stored { before: None });
        assert_eq!(get(&mut transaction, &first.cluster).await.unwrap().as_ref(), Some(&first));

        let mut again = RootServers { reported_at: 2000, reporter: "192.0.2.9".parse().unwrap(), ..first.clone() };
        again.servers.reverse();
        assert_eq!(record(&mut transaction, &again).await.unwrap(), Recorded::Unchanged);
        assert_eq!(get(&mut transaction, &first.cluster).await.unwrap().as_ref(), Some(&first));

        let mut moved = again.clone();
        moved.servers.pop();
        let before = Some(first.clone());
        assert_eq!(record(&mut transaction, &moved).await.unwrap(), Recorded::Stored { before });
        let stale = RootServers { reported_at: 1999, role: ClusterRole::Standby, ..first.clone() };
        assert_eq!(record(&mut transaction, &stale).await.unwrap(), Recorded::Stale { newest: 2000 });
        assert_eq!(of_name(&mut transaction, &first.cluster.name).await.unwrap(), [moved.clone()]);

        assert_eq!(delete(&mut transaction, &first.cluster).await.unwrap(), Some(moved));
        assert_eq!(delete(&mut transaction, &first.cluster).await.unwrap(), None);
        assert_eq!(record(&mut transaction, &first).await.unwrap(), Recorded::Stored { before: None });
    }

    #[tokio::test]
    async fn clusters_of_a_name_are_told_apart_by_their_ids_and_names_by_case() {
        let (_directory, store) = store().await;
        let mut transaction = store.begin().await.unwrap();
        for (name, id) in [("ob", 2), ("ob", 1), ("OB", 1), ("a", 7)] {
            record(&mut transaction, &report(name, id, 1)).await.unwrap();
        }
        let found = of_name(&mut transaction, &"ob".parse().unwrap()).await.unwrap();
        assert_eq!(found.iter().map(|list| list.cluster.id.get()).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(names(&mut transaction).await.unwrap(), ["OB", "a", "ob"]);
    }

    #[tokio::test]
    async fn no_more_clusters_are_kept_than_there_is_room_for() {
        let (_directory, store) = store().await;
        let mut transaction = store.begin().await.unwrap();
        for id in 1..=MOST_CLUSTERS {
            insert(&mut transaction, &report("ob", id, 1)).await.unwrap();
        }
        assert_eq!(record(&mut transaction, &report("other", 1, 1)).await.unwrap(), Recorded::Full);
        let known = RootServers { role: ClusterRole::Standby, ..report("ob", 1, 2) };
        assert!(matches!(record(&mut transaction, &known).await.unwrap(), Recorded::Stored { before: Some(_) }));
        delete(&mut transaction, &known.cluster).await.unwrap();
        assert_eq!(record(&mut transaction, &report("other", 1, 1)).await.unwrap(), Recorded::Stored { before: None });
    }

    #[test]
    fn an_id_is_one_that_observers_can_have() {
        assert!([1, 4_294_901_759].into_iter().all(|id| ObClusterId::try_from(id).is_ok()));
        assert!([i64::MIN, -1, 0, 4_294_901_760, i64::MAX].into_iter().all(|id| ObClusterId::try_from(id).is_err()));
    }

    #[test]
    fn a_list_is_shown_on_one_line() {
        let shown = "PRIMARY 192.0.2.1:2882 (SQL 2881) LEADER, [2001:db8::2]:2882 (SQL 2881) FOLLOWER, \
                     192.0.2.3:2882 (SQL 2881, read only) FOLLOWER";
        assert_eq!(report("ob", 1, 1).to_string(), shown);
    }
}
