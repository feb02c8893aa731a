//! Proxy clusters and the proxies in them.

use super::{
    StoreError, allocate,
    columns::{Cause, decode, encode, parse},
    now_micros, pieces, push_in,
};
use crate::{
    graph::wire_enum,
    steps::values::{ClusterName, PackageRef, Parameter, Port},
};
use serde::{Deserialize, Serialize};
use sqlx::{Any, AnyConnection, QueryBuilder, Row as _, any::AnyRow};
use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};

wire_enum! {
    /// Where the proxies of a cluster learn of their OceanBase clusters.
    ClusterMode { ConfigUrl => "CONFIG_URL", RsList => "RS_LIST" }
}

wire_enum! {
    ObproxyStatus {
        Creating => "CREATING",
        Running => "RUNNING",
        Restarting => "RESTARTING",
        Upgrading => "UPGRADING",
        Refreshing => "REFRESHING",
        Deleting => "DELETING",
        Unavailable => "UNAVAILABLE",
    }
}

/// An OceanBase cluster that the proxies may connect to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObLink {
    pub cluster_name: ClusterName,
    pub ob_cluster_id: i64,
    pub username: String,
}

/// Passwords of a cluster, sealed for the places that [`SealedSecrets::place`] names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecrets {
    pub obproxy_sys_password: String,
    pub observer_sys_password: String,
}

impl SealedSecrets {
    /// `secret` is [`OBPROXY_SYS_PASSWORD`](crate::steps::OBPROXY_SYS_PASSWORD) or its sibling.
    pub fn place(cluster_id: i64, secret: &str) -> String {
        format!("obproxy_cluster/{cluster_id}/{secret}")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    pub id: i64,
    pub name: ClusterName,
    /// Under which clients reach the cluster, such as a load balancer's name.
    pub address: Option<String>,
    pub port: Option<u16>,
    pub work_mode: ClusterMode,
    pub ob_links: Vec<ObLink>,
    pub startup_parameters: Vec<Parameter>,
    pub parameters: Vec<Parameter>,
    /// Grows with every change of the parameters.
    pub parameter_version: i64,
    pub secrets: SealedSecrets,
    pub creator: String,
    pub created_at: i64,
    pub updated_at: i64,
}

/// Takes the id of a cluster that is to be, so that its secrets can be sealed for it.
pub async fn next_id(connection: &mut AnyConnection) -> Result<i64, StoreError> {
    allocate(connection, "obproxy_cluster", 1).await
}

/// Fails with a conflict ([`StoreError::is_conflict`]) if the name is taken.
pub async fn insert(connection: &mut AnyConnection, cluster: &Cluster) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO obproxy_clusters (id, name, address, port, work_mode, ob_links, startup_parameters, parameters, \
         parameter_version, secrets, creator, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(cluster.id)
    .bind(cluster.name.as_str())
    .bind(cluster.address.as_deref())
    .bind(cluster.port.map(i64::from))
    .bind(cluster.work_mode.as_str())
    .bind(encode(&cluster.ob_links)?)
    .bind(encode(&cluster.startup_parameters)?)
    .bind(encode(&cluster.parameters)?)
    .bind(cluster.parameter_version)
    .bind(encode(&cluster.secrets)?)
    .bind(&cluster.creator)
    .bind(cluster.created_at)
    .bind(cluster.updated_at)
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn get(connection: &mut AnyConnection, id: i64) -> Result<Option<Cluster>, StoreError> {
    let row = sqlx::query("SELECT * FROM obproxy_clusters WHERE id = ?").bind(id).fetch_optional(connection).await?;
    row.as_ref().map(read_cluster).transpose()
}

/// Clusters by their ids, those that exist.
pub async fn clusters(connection: &mut AnyConnection, ids: &[i64]) -> Result<HashMap<i64, Cluster>, StoreError> {
    super::by_ids(connection, "obproxy_clusters", ids, read_cluster).await
}

pub async fn by_name(connection: &mut AnyConnection, name: &str) -> Result<Option<Cluster>, StoreError> {
    let row =
        sqlx::query("SELECT * FROM obproxy_clusters WHERE name = ?").bind(name).fetch_optional(connection).await?;
    row.as_ref().map(read_cluster).transpose()
}

/// The ids of the OceanBase clusters of a name that proxy clusters link to.
pub async fn linked_ids(connection: &mut AnyConnection, name: &ClusterName) -> Result<BTreeSet<i64>, StoreError> {
    // JSON leaves every character of a name as it is.
    let rows = sqlx::query("SELECT id, ob_links FROM obproxy_clusters WHERE INSTR(ob_links, ?) > 0")
        .bind(format!("\"{name}\""))
        .fetch_all(connection)
        .await?;
    let mut ids = BTreeSet::new();
    for row in &rows {
        let damaged = |id, source: Cause| StoreError::Damaged { table: "obproxy_clusters", id, source };
        let id = row.try_get("id")?;
        let links: Vec<ObLink> =
            decode(&row.try_get::<String, _>("ob_links")?).map_err(|source| damaged(id, source))?;
        ids.extend(links.iter().filter(|link| link.cluster_name == *name).map(|link| link.ob_cluster_id));
    }
    Ok(ids)
}

/// Answers one page, oldest first, and the number of all clusters.
pub async fn list(connection: &mut AnyConnection, limit: i64, offset: i64) -> Result<(Vec<Cluster>, i64), StoreError> {
    let count = sqlx::query("SELECT COUNT(*) FROM obproxy_clusters").fetch_one(&mut *connection).await?;
    let rows = sqlx::query("SELECT * FROM obproxy_clusters ORDER BY id LIMIT ? OFFSET ?")
        .bind(limit)
        .bind(offset)
        .fetch_all(connection)
        .await?;
    Ok((rows.iter().map(read_cluster).collect::<Result<_, _>>()?, count.try_get(0)?))
}

/// Writes down under which address clients reach a cluster.
pub async fn set_address(
    connection: &mut AnyConnection,
    id: i64,
    address: Option<&str>,
    port: Option<u16>,
    updated_at: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE obproxy_clusters SET address = ?, port = ?, updated_at = ? WHERE id = ?")
        .bind(address)
        .bind(port.map(i64::from))
        .bind(updated_at)
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
}

/// Writes down all links of a cluster.
pub async fn set_links(
    connection: &mut AnyConnection,
    id: i64,
    links: &[ObLink],
    updated_at: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE obproxy_clusters SET ob_links = ?, updated_at = ? WHERE id = ?")
        .bind(encode(&links)?)
        .bind(updated_at)
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
}

/// Answers whether there was such a cluster.
pub async fn delete(connection: &mut AnyConnection, id: i64) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM obproxy_clusters WHERE id = ?").bind(id).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

fn read_cluster(row: &AnyRow) -> Result<Cluster, StoreError> {
    let id: i64 = row.try_get("id")?;
    let damaged = |source: Cause| StoreError::Damaged { table: "obproxy_clusters", id, source };
    let text = |column: &str| row.try_get::<String, _>(column);
    let port: Option<i64> = row.try_get("port")?;
    Ok(Cluster {
        id,
        name: text("name")?.parse().map_err(|error| damaged(Box::new(error)))?,
        address: row.try_get("address")?,
        port: port.map(u16::try_from).transpose().map_err(|error| damaged(error.into()))?,
        work_mode: parse(row, "work_mode").map_err(damaged)?,
        ob_links: decode(&text("ob_links")?).map_err(damaged)?,
        startup_parameters: decode(&text("startup_parameters")?).map_err(damaged)?,
        parameters: decode(&text("parameters")?).map_err(damaged)?,
        parameter_version: row.try_get("parameter_version")?,
        secrets: decode(&text("secrets")?).map_err(damaged)?,
        creator: text("creator")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obproxy {
    pub id: i64,
    pub cluster_id: i64,
    pub host_id: i64,
    pub sql_port: Port,
    pub exporter_port: Port,
    /// None for versions that have no such port.
    pub rpc_port: Option<Port>,
    pub version: PackageRef,
    pub status: ObproxyStatus,
    pub architecture: String,
    pub parameter_version: i64,
    pub created_at: i64,
    pub updated_at: i64,
}

impl Obproxy {
    /// All on which the proxy listens.
    pub fn ports(&self) -> impl Iterator<Item = Port> {
        [self.sql_port, self.exporter_port].into_iter().chain(self.rpc_port)
    }
}

/// A proxy that is to be.
#[derive(Debug, Clone)]
pub struct NewObproxy {
    pub cluster_id: i64,
    pub host_id: i64,
    pub sql_port: Port,
    pub exporter_port: Port,
    /// None for versions that have no such port.
    pub rpc_port: Option<Port>,
    pub version: PackageRef,
    pub parameter_version: i64,
}

/// The proxies begin as CREATING. Fails with a conflict if a host has one on such a port.
pub async fn insert_proxies(connection: &mut AnyConnection, new: &[NewObproxy]) -> Result<Vec<Obproxy>, StoreError> {
    let first = allocate(connection, "obproxy", i64::try_from(new.len()).unwrap_or(i64::MAX)).await?;
    let now = now_micros();
    let proxy = |(id, new): (i64, &NewObproxy)| Obproxy {
        id,
        cluster_id: new.cluster_id,
        host_id: new.host_id,
        sql_port: new.sql_port,
        exporter_port: new.exporter_port,
        rpc_port: new.rpc_port,
        architecture: new.version.architecture().to_owned(),
        version: new.version.clone(),
        status: ObproxyStatus::Creating,
        parameter_version: new.parameter_version,
        created_at: now,
        updated_at: now,
    };
    let proxies: Vec<_> = (first..).zip(new).map(proxy).collect();
    write_proxies(connection, &proxies).await?;
    Ok(proxies)
}

/// Writes proxies under the ids that they have.
pub async fn write_proxies(connection: &mut AnyConnection, proxies: &[Obproxy]) -> Result<(), StoreError> {
    for piece in pieces(proxies) {
        let mut query = QueryBuilder::<Any>::new(
            "INSERT INTO obproxies (id, cluster_id, host_id, sql_port, exporter_port, rpc_port, version, architecture, \
             status, parameter_version, created_at, updated_at) ",
        );
        query.push_values(piece, |mut row, proxy| {
            row.push_bind(proxy.id).push_bind(proxy.cluster_id).push_bind(proxy.host_id);
            row.push_bind(i64::from(proxy.sql_port.get())).push_bind(i64::from(proxy.exporter_port.get()));
            row.push_bind(proxy.rpc_port.map(|port| i64::from(port.get())));
            row.push_bind(proxy.version.file_name()).push_bind(proxy.architecture.clone());
            row.push_bind(proxy.status.as_str()).push_bind(proxy.parameter_version);
            row.push_bind(proxy.created_at).push_bind(proxy.updated_at);
        });
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Proxies by their ids, those that exist.
pub async fn proxies(connection: &mut AnyConnection, ids: &[i64]) -> Result<HashMap<i64, Obproxy>, StoreError> {
    super::by_ids(connection, "obproxies", ids, read_proxy).await
}

/// The proxies of clusters, by cluster and in the order of their ids.
pub async fn proxies_of(connection: &mut AnyConnection, clusters: &[i64]) -> Result<Vec<Obproxy>, StoreError> {
    proxies_where(connection, "cluster_id", clusters).await
}

/// The proxies on hosts, by host and in the order of their ids.
pub async fn proxies_on(connection: &mut AnyConnection, hosts: &[i64]) -> Result<Vec<Obproxy>, StoreError> {
    proxies_where(connection, "host_id", hosts).await
}

async fn proxies_where(
    connection: &mut AnyConnection,
    column: &'static str,
    ids: &[i64],
) -> Result<Vec<Obproxy>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = proxies_query(column, ids).build().fetch_all(connection).await?;
    rows.iter().map(read_proxy).collect()
}

pub(super) fn proxies_query(column: &'static str, ids: &[i64]) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("SELECT * FROM obproxies WHERE ");
    query.push(column);
    push_in(&mut query, ids.iter().copied());
    query.push(" ORDER BY ").push(column).push(", id");
    query
}

/// The names of clusters.
pub async fn names(
    connection: &mut AnyConnection,
    ids: impl IntoIterator<Item = i64>,
) -> Result<HashMap<i64, String>, StoreError> {
    let ids: BTreeSet<i64> = ids.into_iter().collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = names_query(ids).build().fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("name")?))).collect()
}

pub(super) fn names_query(ids: impl IntoIterator<Item = i64>) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("SELECT id, name FROM obproxy_clusters WHERE id");
    push_in(&mut query, ids);
    query
}

/// The oldest proxies that were installed from a package, or are being installed.
pub async fn proxies_of_version(
    connection: &mut AnyConnection,
    version: &PackageRef,
    most: i64,
) -> Result<Vec<Obproxy>, StoreError> {
    let rows = sqlx::query("SELECT * FROM obproxies WHERE version = ? ORDER BY id LIMIT ?")
        .bind(version.file_name())
        .bind(most)
        .fetch_all(connection)
        .await?;
    rows.iter().map(read_proxy).collect()
}

pub async fn all_proxies(connection: &mut AnyConnection) -> Result<Vec<Obproxy>, StoreError> {
    let rows = sqlx::query("SELECT * FROM obproxies ORDER BY id").fetch_all(connection).await?;
    rows.iter().map(read_proxy).collect()
}

/// Answers whether there is such a proxy.
pub async fn set_proxy_status(
    connection: &mut AnyConnection,
    id: i64,
    status: ObproxyStatus,
) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE obproxies SET status = ?, updated_at = ? WHERE id = ?")
        .bind(status.as_str())
        .bind(now_micros())
        .bind(id)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Answers whether there was such a proxy.
pub async fn delete_proxy(connection: &mut AnyConnection, id: i64) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM obproxies WHERE id = ?").bind(id).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

fn read_proxy(row: &AnyRow) -> Result<Obproxy, StoreError> {
    let id: i64 = row.try_get("id")?;
    let damaged = |source: Cause| StoreError::Damaged { table: "obproxies", id, source };
    let port = |number: i64| Port::try_from(number).map_err(|error| damaged(Box::new(error)));
    Ok(Obproxy {
        id,
        cluster_id: row.try_get("cluster_id")?,
        host_id: row.try_get("host_id")?,
        sql_port: port(row.try_get("sql_port")?)?,
        exporter_port: port(row.try_get("exporter_port")?)?,
        rpc_port: row.try_get::<Option<i64>, _>("rpc_port")?.map(port).transpose()?,
        version: row.try_get::<String, _>("version")?.parse().map_err(|error| damaged(Box::new(error)))?,
        status: parse(row, "status").map_err(damaged)?,
        architecture: row.try_get("architecture")?,
        parameter_version: row.try_get("parameter_version")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::store::Store;

    #[tokio::test]
    async fn clusters_and_proxies_are_read_as_they_were_written() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.db")).await.unwrap();
        let mut transaction = store.begin().await.unwrap();
        let parameter = Parameter { name: "work_thread_num".parse().unwrap(), value: "4".parse().unwrap() };
        let mut cluster = Cluster {
            id: next_id(&mut transaction).await.unwrap(),
            name: "test".parse().unwrap(),
            address: None,
            port: Some(2883),
            work_mode: ClusterMode::RsList,
            ob_links: vec![ObLink {
                cluster_name: "ob".parse().unwrap(),
                ob_cluster_id: 1,
                username: "proxyro".into(),
            }],
            startup_parameters: Vec::new(),
            parameters: vec![parameter],
            parameter_version: 1,
            secrets: SealedSecrets { obproxy_sys_password: "a".into(), observer_sys_password: "b".into() },
            creator: "admin".into(),
            created_at: 1,
            updated_at: 2,
        };
        insert(&mut transaction, &cluster).await.unwrap();
        assert_eq!(by_name(&mut transaction, "test").await.unwrap().as_ref(), Some(&cluster));
        assert_eq!(list(&mut transaction, 10, 0).await.unwrap(), (vec![cluster.clone()], 1));
        for (name, ids) in [("ob", vec![1]), ("OB", vec![]), ("proxyro", vec![]), ("o", vec![])] {
            let found = linked_ids(&mut transaction, &name.parse().unwrap()).await.unwrap();
            assert_eq!(found.into_iter().collect::<Vec<_>>(), ids, "{name}");
        }
        set_address(&mut transaction, cluster.id, Some("db.example"), None, 7).await.unwrap();
        cluster.ob_links.push(ObLink {
            cluster_name: "other".parse().unwrap(),
            ob_cluster_id: 2,
            username: "ro".into(),
        });
        set_links(&mut transaction, cluster.id, &cluster.ob_links, 8).await.unwrap();
        cluster = Cluster { address: Some("db.example".into()), port: None, updated_at: 8, ..cluster };
        assert_eq!(get(&mut transaction, cluster.id).await.unwrap().as_ref(), Some(&cluster));
        cluster.id += 1;
        assert!(insert(&mut transaction, &cluster).await.unwrap_err().is_conflict());

        let new = NewObproxy {
            cluster_id: 1,
            host_id: 7,
            sql_port: Port::try_from(2883).unwrap(),
            exporter_port: Port::try_from(2884).unwrap(),
            rpc_port: None,
            version: "obproxy-1.9.1.1-1919579.el7.x86_64".parse().unwrap(),
            parameter_version: 1,
        };
        let [proxy] = &insert_proxies(&mut transaction, std::slice::from_ref(&new)).await.unwrap()[..] else {
            panic!()
        };
        assert!(insert_proxies(&mut transaction, std::slice::from_ref(&new)).await.unwrap_err().is_conflict());
        let ports = [2893, 2894, 2895].map(|number| Port::try_from(number).unwrap());
        let [sql_port, exporter_port, rpc_port] = ports;
        let second = NewObproxy { sql_port, exporter_port, rpc_port: Some(rpc_port), ..new };
        let second = insert_proxies(&mut transaction, &[second]).await.unwrap().remove(0);
        assert_eq!(second.ports().collect::<Vec<_>>(), ports);
        assert_eq!(proxies_on(&mut transaction, &[7]).await.unwrap(), [proxy.clone(), second.clone()]);
        assert!(set_proxy_status(&mut transaction, proxy.id, ObproxyStatus::Running).await.unwrap());
        assert!(!set_proxy_status(&mut transaction, 999, ObproxyStatus::Running).await.unwrap());
        assert_eq!(proxies_of(&mut transaction, &[1]).await.unwrap()[0].status, ObproxyStatus::Running);
        for id in [proxy.id, second.id] {
            assert!(delete_proxy(&mut transaction, id).await.unwrap());
        }
        assert_eq!(all_proxies(&mut transaction).await.unwrap(), []);
    }
}
