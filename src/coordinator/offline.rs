//! What an administrator of the coordinator's host changes in the store without a user's password.

use super::store::{
    FILE_NAME, Store, StoreError,
    agent::certificates,
    audit::{self, Change},
    host,
    user::{self, WeakPassword},
};
use crate::tls::CertificateFacts;
use secrecy::SecretString;
use std::{net::IpAddr, path::Path};

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

/// Takes down that the host of this address was given a certificate by hand, also while the coordinator runs. It is
/// trusted with it even if it was revoked or removed before.
///
/// Without a record stays what is made before the coordinator's first start, and for a host whose agent serves with a
/// certificate that has none either: a record would cut it off before it has the new one.
pub async fn record_certificate(state_dir: &Path, address: IpAddr, facts: &CertificateFacts) -> Result<(), StoreError> {
    let file = state_dir.join(FILE_NAME);
    if !file.is_file() {
        return Ok(());
    }
    let store = Store::open(&file).await?;
    let mut transaction = store.begin().await?;
    let is_host = host::by_ip(&mut transaction, address).await?.is_some();
    if !is_host || certificates::is_known(&mut transaction, address).await? {
        certificates::trust_again(&mut transaction, address).await?;
        certificates::insert(&mut transaction, address, facts).await?;
        let (object, detail) = (format!("host {address}"), format!("certificate {} by hand", facts.serial));
        let change = Change { user: LOCAL, action: "host.certificate", object: &object, detail: &detail, trace_id: "" };
        audit::write(&mut transaction, &[change]).await?;
    }
    transaction.commit().await?;
    store.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        coordinator::{
            enrolment::Enrolment,
            store::{
                agent::certificates::{Standing, Trust},
                host::HostDetails,
            },
        },
        tls::{CertificateAuthority, Fingerprint, Role},
    };
    use std::sync::Arc;

    const HOST: &str = "192.0.2.1";

    struct Made<'a> {
        state_dir: &'a Path,
        authority: CertificateAuthority,
        store: Store,
    }

    impl Made<'_> {
        /// As `oblet-coordinator certificate` does.
        async fn by_hand(&self) -> Fingerprint {
            let address = HOST.parse().unwrap();
            let issued = self.authority.issue(Role::Agent, "db1", &[address]).unwrap();
            let facts = CertificateFacts::of_pem(issued.certificate_pem.as_bytes()).unwrap();
            record_certificate(self.state_dir, address, &facts).await.unwrap();
            facts.fingerprint
        }

        async fn trust(&self) -> Arc<Trust> {
            self.store.trust(HOST.parse().unwrap()).await.unwrap()
        }

        async fn remove(&self) {
            let mut transaction = self.store.begin().await.unwrap();
            Enrolment::revoke(&mut transaction, HOST.parse().unwrap(), "admin").await.unwrap();
            transaction.commit().await.unwrap();
        }
    }

    async fn made(state_dir: &Path) -> Made<'_> {
        let store = Store::open(&state_dir.join(FILE_NAME)).await.unwrap();
        Made { state_dir, authority: CertificateAuthority::load_or_create(state_dir).unwrap(), store }
    }

    #[tokio::test]
    async fn a_host_that_was_removed_is_trusted_with_what_was_made_for_it_since() {
        let directory = tempfile::tempdir().unwrap();
        let made = made(directory.path()).await;
        let old = made.by_hand().await;
        assert_eq!(made.trust().await.standing(old), Standing::FirstSeen);
        made.remove().await;
        assert!(made.trust().await.revocation.is_some());

        let new = made.by_hand().await;
        let trust = made.trust().await;
        assert!(trust.revocation.is_none());
        assert_eq!((trust.standing(new), trust.standing(old)), (Standing::FirstSeen, Standing::Other));
        let mut reader = made.store.readers().acquire().await.unwrap();
        let (events, _) = audit::list(&mut reader, 10, 0).await.unwrap();
        assert!(
            events.iter().all(|event| event.action == "host.certificate" && event.object == format!("host {HOST}"))
        );
    }

    #[tokio::test]
    async fn an_agent_without_a_record_is_not_cut_off_by_the_certificate_that_follows() {
        let directory = tempfile::tempdir().unwrap();
        let made = made(directory.path()).await;
        let mut transaction = made.store.begin().await.unwrap();
        let details = HostDetails::default();
        host::insert(&mut transaction, HOST.parse().unwrap(), 62898, 62899, &details).await.unwrap();
        transaction.commit().await.unwrap();
        let in_use = Fingerprint::of(b"made by an earlier version");
        let next = made.by_hand().await;
        let trust = made.trust().await;
        assert_eq!((trust.standing(in_use), trust.standing(next)), (Standing::Trusted, Standing::Trusted));

        made.remove().await;
        let next = made.by_hand().await;
        let trust = made.trust().await;
        assert_eq!((trust.standing(in_use), trust.standing(next)), (Standing::Other, Standing::FirstSeen));
    }

    #[tokio::test]
    async fn before_the_first_start_there_is_nothing_to_take_it_down_in() {
        let directory = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::load_or_create(directory.path()).unwrap();
        let issued = authority.issue(Role::Agent, "db1", &[HOST.parse().unwrap()]).unwrap();
        let facts = CertificateFacts::of_pem(issued.certificate_pem.as_bytes()).unwrap();
        record_certificate(directory.path(), HOST.parse().unwrap(), &facts).await.unwrap();
        assert!(!directory.path().join(FILE_NAME).exists());
    }
}
