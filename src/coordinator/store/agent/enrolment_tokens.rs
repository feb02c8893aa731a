//! One-time tokens with which agents ask for their first certificate. Of a token only its hash is kept: it is random
//! and long, so nobody finds it from its hash, and looking a hash up takes no time that tells of the token.

use crate::{
    coordinator::store::{
        StoreError, allocate,
        columns::{Cause, parse},
        now_micros,
    },
    graph::wire_enum,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::{AnyConnection, Row as _, any::AnyRow};
use std::{fmt, net::IpAddr};

wire_enum! {
    /// OPEN tokens expire without a change of their row.
    TokenStatus { Open => "OPEN", Used => "USED", Revoked => "REVOKED" }
}

/// How a token was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// Microseconds since 1970.
    pub at: i64,
    /// Address from which it came.
    pub from: String,
    /// Serial of the certificate that was given for it.
    pub serial: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolmentToken {
    pub id: i64,
    /// The host that may use it, and for which the certificate is made.
    pub address: IpAddr,
    /// It may come from another address, such as that of a gateway.
    pub any_source: bool,
    pub creator: String,
    pub status: TokenStatus,
    /// Microseconds since 1970.
    pub created_at: i64,
    /// Microseconds since 1970.
    pub expires_at: i64,
    pub used: Option<Use>,
}

/// A token that is to be made.
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
    pub address: IpAddr,
    pub any_source: bool,
    pub creator: &'a str,
    /// Microseconds since 1970.
    pub expires_at: i64,
}

/// Under which a token is found.
pub fn hash(token: &str) -> String {
    Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes down a token that whoever asked for it keeps.
pub async fn insert(
    connection: &mut AnyConnection,
    token: &str,
    draft: &Draft<'_>,
) -> Result<EnrolmentToken, StoreError> {
    let made = EnrolmentToken {
        id: allocate(connection, "enrolment_token", 1).await?,
        address: draft.address,
        any_source: draft.any_source,
        creator: draft.creator.to_owned(),
        status: TokenStatus::Open,
        created_at: now_micros(),
        expires_at: draft.expires_at,
        used: None,
    };
    sqlx::query(
        "INSERT INTO enrolment_tokens (id, token_hash, address, any_source, creator, status, created_at, expires_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(made.id)
    .bind(hash(token))
    .bind(made.address.to_string())
    .bind(i64::from(made.any_source))
    .bind(&made.creator)
    .bind(made.status.as_str())
    .bind(made.created_at)
    .bind(made.expires_at)
    .execute(connection)
    .await?;
    Ok(made)
}

pub async fn by_token(connection: &mut AnyConnection, token: &str) -> Result<Option<EnrolmentToken>, StoreError> {
    let row = sqlx::query("SELECT * FROM enrolment_tokens WHERE token_hash = ?").bind(hash(token));
    row.fetch_optional(connection).await?.as_ref().map(read).transpose()
}

pub async fn get(connection: &mut AnyConnection, id: i64) -> Result<Option<EnrolmentToken>, StoreError> {
    let row = sqlx::query("SELECT * FROM enrolment_tokens WHERE id = ?").bind(id);
    row.fetch_optional(connection).await?.as_ref().map(read).transpose()
}

/// Answers one page, newest first, and the number of all tokens.
pub async fn list(
    connection: &mut AnyConnection,
    limit: i64,
    offset: i64,
) -> Result<(Vec<EnrolmentToken>, i64), StoreError> {
    let total = sqlx::query("SELECT COUNT(*) FROM enrolment_tokens").fetch_one(&mut *connection).await?.try_get(0)?;
    let rows = sqlx::query("SELECT * FROM enrolment_tokens ORDER BY id DESC LIMIT ? OFFSET ?")
        .bind(limit)
        .bind(offset)
        .fetch_all(connection)
        .await?;
    Ok((rows.iter().map(read).collect::<Result<_, _>>()?, total))
}

/// Answers whether the token was open, and is this one's use.
pub async fn mark_used(connection: &mut AnyConnection, id: i64, used: &Use) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE enrolment_tokens SET status = 'USED', used_at = ?, used_from = ?, certificate_serial = ? \
         WHERE id = ? AND status = 'OPEN'",
    )
    .bind(used.at)
    .bind(&used.from)
    .bind(&used.serial)
    .bind(id)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Answers whether the token was open.
pub async fn revoke(connection: &mut AnyConnection, id: i64) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE enrolment_tokens SET status = 'REVOKED' WHERE id = ? AND status = 'OPEN'")
        .bind(id)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Answers how many tokens of the host were open.
pub async fn revoke_all(connection: &mut AnyConnection, address: IpAddr) -> Result<u64, StoreError> {
    let done = sqlx::query("UPDATE enrolment_tokens SET status = 'REVOKED' WHERE address = ? AND status = 'OPEN'")
        .bind(address.to_string())
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

fn read(row: &AnyRow) -> Result<EnrolmentToken, StoreError> {
    let id: i64 = row.try_get("id")?;
    let damaged = |source: Cause| StoreError::Damaged { table: "enrolment_tokens", id, source };
    let used = match row.try_get::<Option<i64>, _>("used_at")? {
        Some(at) => Some(Use { at, from: row.try_get("used_from")?, serial: row.try_get("certificate_serial")? }),
        None => None,
    };
    Ok(EnrolmentToken {
        id,
        address: row.try_get::<String, _>("address")?.parse().map_err(|error| damaged(Box::new(error)))?,
        any_source: row.try_get::<i64, _>("any_source")? != 0,
        creator: row.try_get("creator")?,
        status: parse(row, "status").map_err(damaged)?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        used,
    })
}

/// Forgets tokens that expired before `before`, in microseconds since 1970, whatever became of them; answers how many
/// those were.
pub async fn expire(connection: &mut AnyConnection, before: i64) -> Result<u64, StoreError> {
    let done = sqlx::query("DELETE FROM enrolment_tokens WHERE expires_at < ?").bind(before).execute(connection);
    Ok(done.await?.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::store::Store;

    #[tokio::test]
    async fn a_token_is_used_once_and_kept_as_a_hash_only() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.db")).await.unwrap();
        let mut transaction = store.begin().await.unwrap();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let draft = Draft { address, any_source: false, creator: "admin", expires_at: 7 };
        let made = insert(&mut transaction, "secret-of-one", &draft).await.unwrap();
        assert_eq!(by_token(&mut transaction, "secret-of-one").await.unwrap().as_ref(), Some(&made));
        assert_eq!(by_token(&mut transaction, "secret").await.unwrap(), None);
        let used = Use { at: 3, from: "192.0.2.1".into(), serial: "4711".into() };
        assert!(mark_used(&mut transaction, made.id, &used).await.unwrap());
        assert!(!mark_used(&mut transaction, made.id, &used).await.unwrap());
        assert!(!revoke(&mut transaction, made.id).await.unwrap());
        let found = get(&mut transaction, made.id).await.unwrap().unwrap();
        assert_eq!((found.status, found.used), (TokenStatus::Used, Some(used)));
        insert(&mut transaction, "secret-of-two", &draft).await.unwrap();
        assert_eq!(revoke_all(&mut transaction, address).await.unwrap(), 1);
        let (tokens, total) = list(&mut transaction, 10, 0).await.unwrap();
        assert_eq!((total, tokens.iter().map(|token| token.id).collect::<Vec<_>>()), (2, vec![2, 1]));
        transaction.commit().await.unwrap();
        store.close().await;
        let file = std::fs::read(directory.path().join("store.db")).unwrap();
        assert!(!file.windows(9).any(|window| window == b"secret-of"));
    }
}
