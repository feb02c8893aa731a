//! Users of the REST API. Of a password only its Argon2 hash is kept.

use super::{StoreError, allocate, now_micros};
use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{AnyConnection, Row as _, any::AnyRow};
use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};

#[derive(Clone)]
pub struct User {
    pub id: i64,
    pub name: String,
    pub password_hash: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// A password that is guessed too easily, or that HTTP Basic cannot carry.
#[derive(Debug, thiserror::Error)]
#[error("a password has {} to {} characters, none of them a control character", SHORTEST, LONGEST)]
pub struct WeakPassword;

const SHORTEST: usize = 8;
const LONGEST: usize = 64;

/// Looks at a password that somebody chose.
pub fn check_strength(password: &SecretString) -> Result<(), WeakPassword> {
    let text = password.expose_secret();
    let fits = (SHORTEST..=LONGEST).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(WeakPassword) }
}

/// Takes some ten milliseconds of processor time, so not on a runtime thread.
pub fn hash(password: &SecretString) -> Result<String, StoreError> {
    let hash = Argon2::default().hash_password(password.expose_secret().as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| StoreError::Sql(sqlx::Error::Encode(error.to_string().into())))
}

/// Answers whether there is such a user.
pub async fn set_password_hash(connection: &mut AnyConnection, name: &str, hash: &str) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE users SET password_hash = ? WHERE name = ?").bind(hash).bind(name);
    Ok(done.execute(connection).await?.rows_affected() > 0)
}

/// Fails with a conflict ([`StoreError::is_conflict`]) if the name is taken. Takes some ten milliseconds of processor time.
pub async fn create(connection: &mut AnyConnection, name: &str, password: &SecretString) -> Result<User, StoreError> {
    let password_hash = hash(password)?;
    let user = User { id: allocate(connection, "user", 1).await?, name: name.to_owned(), password_hash };
    sqlx::query("INSERT INTO users (id, name, password_hash, created_at) VALUES (?, ?, ?, ?)")
        .bind(user.id)
        .bind(&user.name)
        .bind(&user.password_hash)
        .bind(now_micros())
        .execute(connection)
        .await?;
    Ok(user)
}

pub async fn by_name(connection: &mut AnyConnection, name: &str) -> Result<Option<User>, StoreError> {
    let row = sqlx::query("SELECT * FROM users WHERE name = ?").bind(name).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

/// The ids of users, by their names.
pub async fn ids(
    connection: &mut AnyConnection,
    names: impl IntoIterator<Item = &str>,
) -> Result<HashMap<String, i64>, StoreError> {
    let names: BTreeSet<&str> = names.into_iter().collect();
    let mut ids = HashMap::new();
    for name in names {
        ids.extend(by_name(connection, name).await?.map(|user| (user.name, user.id)));
    }
    Ok(ids)
}

pub async fn count(connection: &mut AnyConnection) -> Result<i64, StoreError> {
    Ok(sqlx::query("SELECT COUNT(*) FROM users").fetch_one(connection).await?.try_get(0)?)
}

fn read(row: &AnyRow) -> Result<User, StoreError> {
    Ok(User { id: row.try_get("id")?, name: row.try_get("name")?, password_hash: row.try_get("password_hash")? })
}

/// Compares a password with a hash. Takes some ten milliseconds of processor time, so not on a runtime thread.
pub fn verify(hash: &str, password: &SecretString) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password.expose_secret().as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::store::Store;

    #[tokio::test]
    async fn only_the_right_password_fits() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.db")).await.unwrap();
        let mut transaction = store.begin().await.unwrap();
        assert_eq!(count(&mut transaction).await.unwrap(), 0);
        create(&mut transaction, "admin", &"s3cret".into()).await.unwrap();
        let user = by_name(&mut transaction, "admin").await.unwrap().unwrap();
        assert!(verify(&user.password_hash, &"s3cret".into()));
        assert!(!verify(&user.password_hash, &"S3cret".into()));
        assert!(!verify("no hash", &"s3cret".into()));
        assert!(!format!("{user:?}").contains("argon2"));
        assert!(create(&mut transaction, "admin", &"x".into()).await.unwrap_err().is_conflict());
        assert_eq!(count(&mut transaction).await.unwrap(), 1);
    }
}
