//! Certificates that this coordinator gave to agents, and hosts whose agents are not trusted any more.
//!
//!  1. A certificate is ISSUED until its agent is seen with it, then CURRENT; what the host had before is REPLACED in
//!     the same transaction. So a certificate that got lost on its way cuts nobody off.
//!  2. A host with an ISSUED or CURRENT certificate is accepted with one of those and no other.
//!  3. A host without any is accepted with whatever the authority signed: a certificate that was made by hand, with
//!     `oblet-coordinator certificate`, is not in this table if the host did not need it to be trusted.
//!  4. A revoked host is accepted with nothing, until it is enrolled again, or gets a certificate by hand. A host that was
//!     removed is a revoked one, so that 3 does not take back who was let go.

use crate::{
    coordinator::store::{
        StoreError,
        columns::{Cause, parse},
        now_micros, pieces, push_in,
    },
    graph::wire_enum,
    tls::{CertificateFacts, Fingerprint},
};
use serde::{Deserialize, Serialize};
use sqlx::{Any, AnyConnection, QueryBuilder, Row as _, any::AnyRow};
use std::{collections::HashMap, fmt, net::IpAddr};

wire_enum! {
    CertificateStatus { Issued => "ISSUED", Current => "CURRENT", Replaced => "REPLACED", Revoked => "REVOKED" }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentCertificate {
    /// Hexadecimal digits.
    pub serial: String,
    pub address: IpAddr,
    pub fingerprint: Fingerprint,
    pub status: CertificateStatus,
    /// Microseconds since 1970.
    pub issued_at: i64,
    /// Microseconds since 1970.
    pub not_after: i64,
    /// The host that has the address, if it was added.
    pub host_id: Option<i64>,
    /// Where its agent takes requests, if it was added.
    pub agent_port: Option<u16>,
}

/// The end of trust in a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Microseconds since 1970.
    pub since: i64,
    pub by: String,
}

/// Whether the agent of a host that is not revoked may be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Trusted,
    /// The agent shows a certificate for the first time that was issued to it.
    FirstSeen,
    /// The host has certificates, and this is none of them.
    Other,
}

pub async fn insert(
    connection: &mut AnyConnection,
    address: IpAddr,
    facts: &CertificateFacts,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO agent_certificates (serial, address, fingerprint, status, issued_at, not_before, not_after) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&facts.serial)
    .bind(address.to_string())
    .bind(facts.fingerprint.to_string())
    .bind(CertificateStatus::Issued.as_str())
    .bind(now_micros())
    .bind(facts.not_before)
    .bind(facts.not_after)
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn revocation(connection: &mut AnyConnection, address: IpAddr) -> Result<Option<Revocation>, StoreError> {
    Ok(trust(connection, &[address]).await?.remove(&address).and_then(|trust| trust.revocation))
}

/// What decides whether the agent of a host is spoken to.
#[derive(Debug, Default)]
pub struct Trust {
    pub revocation: Option<Revocation>,
    /// Fingerprints of the certificates with which it is accepted, and whether it was seen with them.
    accepted: Vec<(String, bool)>,
}

impl Trust {
    pub fn standing(&self, shown: Fingerprint) -> Standing {
        let shown = shown.to_string();
        match self.accepted.iter().find(|(fingerprint, _)| *fingerprint == shown) {
            Some((_, true)) => Standing::Trusted,
            Some((_, false)) => Standing::FirstSeen,
            None if self.accepted.is_empty() => Standing::Trusted,
            None => Standing::Other,
        }
    }
}

/// Answers for each of the hosts.
pub async fn trust(connection: &mut AnyConnection, hosts: &[IpAddr]) -> Result<HashMap<IpAddr, Trust>, StoreError> {
    let mut found: HashMap<String, Trust> = hosts.iter().map(|host| (host.to_string(), Trust::default())).collect();
    let addresses: Vec<String> = found.keys().cloned().collect();
    for piece in pieces(&addresses) {
        for row in revocations_query(piece).build().fetch_all(&mut *connection).await? {
            if let Some(trust) = found.get_mut(&row.try_get::<String, _>("address")?) {
                trust.revocation =
                    Some(Revocation { since: row.try_get("revoked_at")?, by: row.try_get("revoked_by")? });
            }
        }
        for row in accepted_query(piece).build().fetch_all(&mut *connection).await? {
            if let Some(trust) = found.get_mut(&row.try_get::<String, _>("address")?) {
                let current = row.try_get::<String, _>("status")? == CertificateStatus::Current.as_str();
                trust.accepted.push((row.try_get("fingerprint")?, current));
            }
        }
    }
    Ok(hosts.iter().filter_map(|host| Some((*host, found.remove(&host.to_string())?))).collect())
}

pub(in crate::coordinator::store) fn revocations_query(addresses: &[String]) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new("SELECT address, revoked_at, revoked_by FROM revoked_hosts WHERE address");
    push_in(&mut query, addresses.iter().cloned());
    query
}

pub(in crate::coordinator::store) fn accepted_query(addresses: &[String]) -> QueryBuilder<Any> {
    let mut query = QueryBuilder::<Any>::new(
        "SELECT address, fingerprint, status FROM agent_certificates WHERE status IN ('ISSUED', 'CURRENT') AND address",
    );
    push_in(&mut query, addresses.iter().cloned());
    query
}

/// The agent has this certificate, so it uses no older one any more.
pub async fn seen(connection: &mut AnyConnection, address: IpAddr, shown: Fingerprint) -> Result<(), StoreError> {
    let (address, shown) = (address.to_string(), shown.to_string());
    let current = sqlx::query(
        "UPDATE agent_certificates SET status = 'CURRENT' WHERE address = ? AND fingerprint = ? AND status = 'ISSUED'",
    )
    .bind(&address)
    .bind(&shown)
    .execute(&mut *connection)
    .await?;
    if current.rows_affected() > 0 {
        sqlx::query(
            "UPDATE agent_certificates SET status = 'REPLACED' \
             WHERE address = ? AND fingerprint <> ? AND status IN ('ISSUED', 'CURRENT')",
        )
        .bind(&address)
        .bind(&shown)
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// The host's agent is not trusted from here on; answers whether it was.
pub async fn revoke(connection: &mut AnyConnection, address: IpAddr, by: &str) -> Result<bool, StoreError> {
    let known = revocation(connection, address).await?.is_some();
    let address = address.to_string();
    sqlx::query(
        "UPDATE agent_certificates SET status = 'REVOKED' WHERE address = ? AND status IN ('ISSUED', 'CURRENT')",
    )
    .bind(&address)
    .execute(&mut *connection)
    .await?;
    if known {
        return Ok(false);
    }
    sqlx::query("INSERT INTO revoked_hosts (address, revoked_at, revoked_by) VALUES (?, ?, ?)")
        .bind(&address)
        .bind(now_micros())
        .bind(by)
        .execute(connection)
        .await?;
    Ok(true)
}

/// Whether the host was given a certificate that is on record, or is revoked.
pub async fn is_known(connection: &mut AnyConnection, address: IpAddr) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM agent_certificates WHERE address = ? LIMIT 1").bind(address.to_string());
    Ok(row.fetch_optional(&mut *connection).await?.is_some() || revocation(connection, address).await?.is_some())
}

/// The host was enrolled again.
pub async fn trust_again(connection: &mut AnyConnection, address: IpAddr) -> Result<(), StoreError> {
    let done = sqlx::query("DELETE FROM revoked_hosts WHERE address = ?").bind(address.to_string());
    done.execute(connection).await?;
    Ok(())
}

/// Forgets certificates that no agent is accepted with and that ran out before `before`, in microseconds since 1970;
/// answers how many those were.
pub async fn expire(connection: &mut AnyConnection, before: i64) -> Result<u64, StoreError> {
    let done = sqlx::query("DELETE FROM agent_certificates WHERE status IN ('REPLACED', 'REVOKED') AND not_after < ?");
    Ok(done.bind(before).execute(connection).await?.rows_affected())
}

/// Those with which agents are accepted, by address and age.
pub async fn in_use(connection: &mut AnyConnection) -> Result<Vec<AgentCertificate>, StoreError> {
    let rows = sqlx::query(
        "SELECT c.*, h.id AS host_id, h.agent_port FROM agent_certificates c LEFT JOIN hosts h \
         ON h.inner_ip = c.address WHERE c.status IN ('ISSUED', 'CURRENT') ORDER BY c.address, c.issued_at",
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}

/// Answers one page, newest first, and the number of all certificates.
pub async fn list(
    connection: &mut AnyConnection,
    limit: i64,
    offset: i64,
) -> Result<(Vec<AgentCertificate>, i64), StoreError> {
    let total = sqlx::query("SELECT COUNT(*) FROM agent_certificates").fetch_one(&mut *connection).await?.try_get(0)?;
    let rows = sqlx::query(
        "SELECT c.*, h.id AS host_id, h.agent_port FROM agent_certificates c LEFT JOIN hosts h \
         ON h.inner_ip = c.address ORDER BY c.issued_at DESC, c.serial DESC LIMIT ? OFFSET ?",
    )
    .bind(limit)
    .bind(offset)
    .fetch_all(connection)
    .await?;
    Ok((rows.iter().map(read).collect::<Result<_, _>>()?, total))
}

fn read(row: &AnyRow) -> Result<AgentCertificate, StoreError> {
    let issued_at = row.try_get("issued_at")?;
    let damaged = |source: Cause| StoreError::Damaged { table: "agent_certificates", id: issued_at, source };
    let agent_port: Option<i64> = row.try_get("agent_port")?;
    Ok(AgentCertificate {
        serial: row.try_get("serial")?,
        address: row.try_get::<String, _>("address")?.parse().map_err(|error| damaged(Box::new(error)))?,
        fingerprint: row.try_get::<String, _>("fingerprint")?.parse().map_err(|error| damaged(Box::new(error)))?,
        status: parse(row, "status").map_err(damaged)?,
        issued_at,
        not_after: row.try_get("not_after")?,
        host_id: row.try_get("host_id")?,
        agent_port: agent_port.map(u16::try_from).transpose().map_err(|error| damaged(error.into()))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::store::Store;
    use Standing::{FirstSeen, Other, Trusted};

    fn facts(serial: &str) -> CertificateFacts {
        let fingerprint = Fingerprint::of(serial.as_bytes());
        CertificateFacts { serial: serial.into(), fingerprint, not_before: 0, not_after: 9, addresses: Vec::new() }
    }

    async fn standing(
        connection: &mut AnyConnection,
        host: IpAddr,
        shown: Fingerprint,
    ) -> Result<Standing, StoreError> {
        Ok(trust(connection, &[host]).await?[&host].standing(shown))
    }

    #[tokio::test]
    async fn a_host_is_known_by_what_it_was_given_last() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.db")).await.unwrap();
        let mut transaction = store.begin().await.unwrap();
        let host: IpAddr = "192.0.2.1".parse().unwrap();
        let [by_hand, first, second] = ["by hand", "01", "02"].map(facts);
        assert_eq!(standing(&mut transaction, host, by_hand.fingerprint).await.unwrap(), Trusted);

        insert(&mut transaction, host, &first).await.unwrap();
        assert_eq!(standing(&mut transaction, host, by_hand.fingerprint).await.unwrap(), Other);
        assert_eq!(standing(&mut transaction, host, first.fingerprint).await.unwrap(), FirstSeen);
        seen(&mut transaction, host, first.fingerprint).await.unwrap();
        assert_eq!(standing(&mut transaction, host, first.fingerprint).await.unwrap(), Trusted);

        insert(&mut transaction, host, &second).await.unwrap();
        assert_eq!(standing(&mut transaction, host, first.fingerprint).await.unwrap(), Trusted, "it may be all it has");
        seen(&mut transaction, host, second.fingerprint).await.unwrap();
        assert_eq!(standing(&mut transaction, host, first.fingerprint).await.unwrap(), Other);
        assert_eq!(in_use(&mut transaction).await.unwrap().len(), 1);
        assert_eq!(list(&mut transaction, 10, 0).await.unwrap().1, 2);
    }

    #[tokio::test]
    async fn a_revoked_host_has_nothing_to_show_until_it_is_enrolled_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.db")).await.unwrap();
        let mut transaction = store.begin().await.unwrap();
        let (host, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let [by_hand, first, second] = ["by hand", "01", "02"].map(facts);
        insert(&mut transaction, host, &first).await.unwrap();
        assert!(revoke(&mut transaction, host, "admin").await.unwrap());
        assert!(!revoke(&mut transaction, host, "root").await.unwrap());
        assert_eq!(revocation(&mut transaction, host).await.unwrap().map(|found| found.by).as_deref(), Some("admin"));
        assert_eq!(revocation(&mut transaction, other).await.unwrap(), None);
        assert_eq!(standing(&mut transaction, other, by_hand.fingerprint).await.unwrap(), Trusted);

        trust_again(&mut transaction, host).await.unwrap();
        assert_eq!(revocation(&mut transaction, host).await.unwrap(), None);
        insert(&mut transaction, host, &second).await.unwrap();
        assert_eq!(standing(&mut transaction, host, first.fingerprint).await.unwrap(), Other);
        assert_eq!(standing(&mut transaction, host, second.fingerprint).await.unwrap(), FirstSeen);
    }
}
