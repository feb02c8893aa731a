//! Hosts: where an agent answers, and what it last said of its host.

pub mod places;

use super::{
    StoreError, allocate,
    columns::{Cause, decode, encode, parse},
    now_micros,
    obproxy::ObproxyStatus,
    pieces, push_in,
};
use crate::{graph::wire_enum, rpc::v1};
use serde::{Deserialize, Serialize};
use sqlx::{Any, AnyConnection, QueryBuilder, Row as _, any::AnyRow};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    net::{AddrParseError, IpAddr},
};

wire_enum! {
    /// NEW: being prepared. AVAILABLE: nothing runs on it. ONLINE: an instance runs on it. OFFLINE: out of reach.
    HostStatus {
        New => "NEW",
        Available => "AVAILABLE",
        Online => "ONLINE",
        Offline => "OFFLINE",
        Deleting => "DELETING",
    }
}

/// What the operator and the agent say of a host. Nothing is decided by it but the architecture.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostDetails {
    pub alias: String,
    pub description: String,
    pub serial_number: String,
    /// OCP's kind of machine.
    pub kind: String,
    pub ssh_port: Option<u16>,
    pub operating_system: String,
    /// Release of the kernel.
    pub operating_system_release: String,
    /// As uname prints it.
    pub architecture: String,
    pub hostname: String,
    pub agent_version: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub id: i64,
    pub inner_ip: IpAddr,
    pub agent_port: u16,
    pub metrics_port: u16,
    pub status: HostStatus,
    pub details: HostDetails,
    /// The data centre that it stands in.
    pub idc_id: Option<i64>,
    pub type_id: Option<i64>,
    pub created_at: i64,
    pub updated_at: i64,
}

impl HostDetails {
    /// The same with what the agent says.
    pub fn told_by(self, facts: &v1::DescribeHostResponse) -> Self {
        Self {
            operating_system: facts.operating_system.clone(),
            operating_system_release: facts.kernel_release.clone(),
            architecture: facts.architecture.clone(),
            hostname: facts.hostname.clone(),
            agent_version: facts.agent_version.clone(),
            ..self
        }
    }
}

/// The host begins as NEW. Fails with a conflict ([`StoreError::is_conflict`]) if the address is known.
pub async fn insert(
    connection: &mut AnyConnection,
    inner_ip: IpAddr,
    agent_port: u16,
    metrics_port: u16,
    details: &HostDetails,
) -> Result<Host, StoreError> {
    let now = now_micros();
    let host = Host {
        id: allocate(connection, "host", 1).await?,
        inner_ip,
        agent_port,
        metrics_port,
        status: HostStatus::New,
        details: details.clone(),
        idc_id: None,
        type_id: None,
        created_at: now,
        updated_at: now,
    };
    sqlx::query(
        "INSERT INTO hosts (id, inner_ip, agent_port, metrics_port, status, details, created_at, updated_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(host.id)
    .bind(host.inner_ip.to_string())
    .bind(i64::from(host.agent_port))
    .bind(i64::from(host.metrics_port))
    .bind(host.status.as_str())
    .bind(encode(&host.details)?)
    .bind(now)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(host)
}

pub async fn get(connection: &mut AnyConnection, id: i64) -> Result<Option<Host>, StoreError> {
    let row = sqlx::query("SELECT * FROM hosts WHERE id = ?").bind(id).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

/// Hosts by their ids, those that exist.
pub async fn by_ids(connection: &mut AnyConnection, ids: &[i64]) -> Result<HashMap<i64, Host>, StoreError> {
    super::by_ids(connection, "hosts", ids, read).await
}

pub async fn by_ip(connection: &mut AnyConnection, inner_ip: IpAddr) -> Result<Option<Host>, StoreError> {
    let row = sqlx::query("SELECT * FROM hosts WHERE inner_ip = ?")
        .bind(inner_ip.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(read).transpose()
}

/// What a list of hosts is narrowed to; empty fields narrow nothing.
#[derive(Debug, Clone, Default)]
pub struct HostFilter {
    /// Part of the address, the alias or the host name.
    pub keyword: Option<String>,
    pub statuses: Vec<HostStatus>,
}

/// Answers one page, oldest first, and the number of all hosts that fit.
pub async fn list(
    connection: &mut AnyConnection,
    filter: &HostFilter,
    limit: i64,
    offset: i64,
) -> Result<(Vec<Host>, i64), StoreError> {
    let total: i64 = count_query(filter).build().fetch_one(&mut *connection).await?.try_get(0)?;
    let rows = page_query(filter, limit, offset).build().fetch_all(connection).await?;
    Ok((rows.iter().map(read).collect::<Result<_, _>>()?, total))
}

pub(super) fn count_query(filter: &HostFilter) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("SELECT COUNT(*) FROM hosts WHERE 1 = 1");
    push_filter(&mut query, filter);
    query
}

pub(super) fn page_query(filter: &HostFilter, limit: i64, offset: i64) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("SELECT * FROM hosts WHERE 1 = 1");
    push_filter(&mut query, filter);
    query.push(" ORDER BY id LIMIT ").push_bind(limit).push(" OFFSET ").push_bind(offset);
    query
}

/// The addresses of hosts, as far as they are known.
pub async fn addresses(
    connection: &mut AnyConnection,
    ids: impl IntoIterator<Item = i64>,
) -> Result<HashMap<i64, IpAddr>, StoreError> {
    let ids: BTreeSet<i64> = ids.into_iter().collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = addresses_query(ids).build().fetch_all(connection).await?;
    let read = |row: &AnyRow| {
        let id = row.try_get("id")?;
        let damaged = |source: Cause| StoreError::Damaged { table: "hosts", id, source };
        let address = row.try_get::<String, _>("inner_ip")?.parse();
        Ok((id, address.map_err(|error: AddrParseError| damaged(error.into()))?))
    };
    rows.iter().map(read).collect()
}

pub(super) fn addresses_query(ids: impl IntoIterator<Item = i64>) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("SELECT id, inner_ip FROM hosts WHERE id");
    push_in(&mut query, ids);
    query
}

/// Those of the addresses that are hosts'.
pub async fn known(connection: &mut AnyConnection, addresses: &[IpAddr]) -> Result<HashSet<IpAddr>, StoreError> {
    let texts: BTreeSet<String> = addresses.iter().map(IpAddr::to_string).collect();
    let texts: Vec<String> = texts.into_iter().collect();
    let mut known = BTreeSet::new();
    for piece in pieces(&texts) {
        for row in known_query(piece).build().fetch_all(&mut *connection).await? {
            known.insert(row.try_get::<String, _>("inner_ip")?);
        }
    }
    Ok(addresses.iter().filter(|address| known.contains(&address.to_string())).copied().collect())
}

pub(super) fn known_query(addresses: &[String]) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("SELECT inner_ip FROM hosts WHERE inner_ip");
    push_in(&mut query, addresses.iter().cloned());
    query
}

fn push_filter(query: &mut QueryBuilder<Any>, filter: &HostFilter) {
    if let Some(keyword) = &filter.keyword {
        query.push(" AND (INSTR(inner_ip, ").push_bind(keyword.clone());
        query.push(") > 0 OR INSTR(JSON_EXTRACT(details, '$.alias'), ").push_bind(keyword.clone());
        query.push(") > 0 OR INSTR(JSON_EXTRACT(details, '$.hostname'), ").push_bind(keyword.clone()).push(") > 0)");
    }
    if !filter.statuses.is_empty() {
        query.push(" AND status IN (");
        let mut list = query.separated(", ");
        for status in &filter.statuses {
            list.push_bind(status.as_str());
        }
        query.push(")");
    }
}

/// Writes down how a host was found.
pub async fn observe(
    connection: &mut AnyConnection,
    id: i64,
    status: HostStatus,
    details: &HostDetails,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE hosts SET status = ?, details = ?, updated_at = ? WHERE id = ?")
        .bind(status.as_str())
        .bind(encode(details)?)
        .bind(now_micros())
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
}

/// Writes down what the agent of a host says of it, and answers the host; None if there is no such host. Its status is
/// left to those who decide it.
pub async fn told(
    connection: &mut AnyConnection,
    id: i64,
    facts: &v1::DescribeHostResponse,
) -> Result<Option<Host>, StoreError> {
    let Some(host) = get(connection, id).await? else { return Ok(None) };
    let details = host.details.clone().told_by(facts);
    observe(connection, id, host.status, &details).await?;
    Ok(Some(Host { details, ..host }))
}

/// Leads a host to a status, and answers the host; None if there is no such host.
pub async fn set_status(
    connection: &mut AnyConnection,
    id: i64,
    status: HostStatus,
) -> Result<Option<Host>, StoreError> {
    let Some(host) = get(connection, id).await? else { return Ok(None) };
    observe(connection, id, status, &host.details).await?;
    Ok(Some(Host { status, ..host }))
}

/// What the host of a proxy is follows from what runs on it: ONLINE or, without a RUNNING proxy, AVAILABLE.
/// One that is NEW or OFFLINE stays so.
pub async fn follow_proxy(connection: &mut AnyConnection, proxy: i64) -> Result<(), StoreError> {
    follow_proxy_query(proxy).build().execute(connection).await?;
    Ok(())
}

/// The same for these hosts, whose proxies may be gone.
pub async fn follow_proxies(connection: &mut AnyConnection, hosts: &[i64]) -> Result<(), StoreError> {
    if !hosts.is_empty() {
        follow_proxies_query(hosts).build().execute(connection).await?;
    }
    Ok(())
}

pub(super) fn follow_proxy_query(proxy: i64) -> QueryBuilder<Any> {
    let mut query = follow_query();
    query.push(" = (SELECT host_id FROM obproxies WHERE id = ").push_bind(proxy).push(")");
    query
}

pub(super) fn follow_proxies_query(hosts: &[i64]) -> QueryBuilder<Any> {
    let mut query = follow_query();
    push_in(&mut query, hosts.iter().copied());
    query
}

fn follow_query() -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new(
        "UPDATE hosts SET status = CASE WHEN EXISTS \
         (SELECT 1 FROM obproxies WHERE obproxies.host_id = hosts.id AND obproxies.status = ",
    );
    query.push_bind(ObproxyStatus::Running.as_str()).push(") THEN CASE WHEN status = ");
    query.push_bind(HostStatus::Available.as_str()).push(" THEN ").push_bind(HostStatus::Online.as_str());
    query.push(" ELSE status END WHEN status = ").push_bind(HostStatus::Online.as_str());
    query.push(" THEN ").push_bind(HostStatus::Available.as_str()).push(" ELSE status END, updated_at = ");
    query.push_bind(now_micros()).push(" WHERE id");
    query
}

/// Writes down where a host stands, and of what type it is.
pub async fn set_place(
    connection: &mut AnyConnection,
    id: i64,
    idc_id: Option<i64>,
    type_id: Option<i64>,
) -> Result<(), StoreError> {
    let query = sqlx::query("UPDATE hosts SET idc_id = ?, type_id = ? WHERE id = ?");
    query.bind(idc_id).bind(type_id).bind(id).execute(connection).await?;
    Ok(())
}

/// Writes down under which port the metrics of the agent are found.
pub async fn set_metrics_port(connection: &mut AnyConnection, id: i64, port: u16) -> Result<(), StoreError> {
    sqlx::query("UPDATE hosts SET metrics_port = ?, updated_at = ? WHERE id = ?")
        .bind(i64::from(port))
        .bind(now_micros())
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
}

/// Answers whether there was such a host.
pub async fn delete(connection: &mut AnyConnection, id: i64) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM hosts WHERE id = ?").bind(id).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

fn read(row: &AnyRow) -> Result<Host, StoreError> {
    let id: i64 = row.try_get("id")?;
    let damaged = |source: Cause| StoreError::Damaged { table: "hosts", id, source };
    let port = |column: &str| {
        let number: i64 = row.try_get(column)?;
        u16::try_from(number).map_err(|error| damaged(error.into()))
    };
    Ok(Host {
        id,
        inner_ip: row.try_get::<String, _>("inner_ip")?.parse().map_err(|error| damaged(Box::new(error)))?,
        agent_port: port("agent_port")?,
        metrics_port: port("metrics_port")?,
        status: parse(row, "status").map_err(damaged)?,
        details: decode(&row.try_get::<String, _>("details")?).map_err(damaged)?,
        idc_id: row.try_get("idc_id")?,
        type_id: row.try_get("type_id")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::store::Store;

    #[tokio::test]
    async fn a_host_is_found_again_and_its_address_is_unique() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.db")).await.unwrap();
        let mut transaction = store.begin().await.unwrap();
        let details = HostDetails { alias: "db-1".into(), architecture: "x86_64".into(), ..HostDetails::default() };
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        let host = insert(&mut transaction, ip, 62898, 62899, &details).await.unwrap();
        assert_eq!(get(&mut transaction, host.id).await.unwrap().as_ref(), Some(&host));
        assert_eq!(by_ip(&mut transaction, ip).await.unwrap().as_ref(), Some(&host));
        assert!(insert(&mut transaction, ip, 1, 2, &details).await.unwrap_err().is_conflict());
        let asked = ["192.0.2.9".parse().unwrap(), ip, ip];
        assert_eq!(known(&mut transaction, &asked).await.unwrap(), HashSet::from([ip]));
        for (keyword, total) in [("db-", 1), ("192.0", 1), ("alias", 0)] {
            let filter = HostFilter { keyword: Some(keyword.into()), statuses: vec![HostStatus::New] };
            assert_eq!(list(&mut transaction, &filter, 10, 0).await.unwrap().1, total, "{keyword}");
        }
        observe(&mut transaction, host.id, HostStatus::Offline, &details).await.unwrap();
        set_metrics_port(&mut transaction, host.id, 9100).await.unwrap();
        let read = get(&mut transaction, host.id).await.unwrap().unwrap();
        assert_eq!((read.status, read.metrics_port), (HostStatus::Offline, 9100));
        assert!(delete(&mut transaction, host.id).await.unwrap());
        assert!(!delete(&mut transaction, host.id).await.unwrap());
    }
}
