//! What an administrator of the coordinator's host changes in the store without a user's password.

use super::store::{
    FILE_NAME, Store, StoreError,
    audit::{self, Change},
    user::{self, WeakPassword},
};
use secrecy::SecretString;
use std::path::Path;

/// How the audit log names who has the rights of the coordinator on its host.
const LOCAL: &str = "(local)";

/// Why a password was not set.
#[derive(Debug, thiserror::Error)]
pub enum SetPasswordError {
    #[error("{0} holds no store; name the coordinator's configuration with --config, or its --state-dir")]
    NoStore(String),
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    #[error("there is no user {0}")]
    NoUser(String),
    #[error(transparent)]
    Weak(#[from] WeakPassword),
}

/// Sets the password of a user, also while the coordinator runs. Requests with the old one are refused from then on.
pub async fn set_password(state_dir: &Path, name: &str, password: &SecretString) -> Result<(), SetPasswordError> {
    user::check_strength(password)?;
    let file = state_dir.join(FILE_NAME);
    if !file.is_file() {
        return Err(SetPasswordError::NoStore(state_dir.display().to_string()));
    }
    let store = Store::open(&file).await?;
    let hash = user::hash(password)?;
    let mut transaction = store.begin().await?;
    if !user::set_password_hash(&mut transaction, name, &hash).await? {
        return Err(SetPasswordError::NoUser(name.to_owned()));
    }
    let object = format!("user {name}");
    let change =
        Change { user: LOCAL, action: "user.password", object: &object, detail: "by oblet-coordinator", trace_id: "" };
    audit::write(&mut transaction, &[change]).await?;
    transaction.commit().await.map_err(StoreError::from)?;
    store.close().await;
    Ok(())
}
