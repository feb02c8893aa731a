//! Which agents are spoken to, as the store has it: asked on every connection, so that nothing in memory can be older.

use super::{
    connection::{DialError, Distrust, Gate},
    store::{
        Store, StoreError,
        agent::certificates::{self as certificates, Revocation, Standing},
    },
};
use crate::tls::Fingerprint;
use futures_util::future::BoxFuture;
use std::net::IpAddr;

pub struct SqlGate {
    pub store: Store,
}

impl Gate for SqlGate {
    fn check(&self, host: IpAddr, shown: Option<Fingerprint>) -> BoxFuture<'_, Result<(), DialError>> {
        Box::pin(async move {
            let undecided = |error: StoreError| DialError::Undecided(Box::new(error));
            let trust = self.store.trust(host).await.map_err(undecided)?;
            if let Some(Revocation { since, by }) = trust.revocation.clone() {
                return Err(Distrust::Revoked { host, since, by }.into());
            }
            let Some(shown) = shown else { return Ok(()) };
            match trust.standing(shown) {
                Standing::Trusted => Ok(()),
                Standing::FirstSeen => self.note(host, shown).await.map_err(undecided),
                Standing::Other => Err(Distrust::OtherCertificate { host, shown }.into()),
            }
        })
    }
}

impl SqlGate {
    async fn note(&self, host: IpAddr, shown: Fingerprint) -> Result<(), StoreError> {
        let mut transaction = self.store.begin().await?;
        certificates::seen(&mut transaction, host, shown).await?;
        transaction.commit().await?;
        tracing::info!(%host, certificate = %shown, "the agent is seen with its certificate");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        coordinator::agents::{AgentAddress, AgentPool, CallError},
        tls::{AgentTls, CallerTls, CertificateAuthority, CertificateFacts, Issued, Role, install_crypto_provider},
    };
    use std::net::Ipv4Addr;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// Shakes hands as an agent does, and says no more.
    async fn agent(tls: AgentTls) -> AgentAddress {
        let listener = TcpListener::bind((HOST, 0)).await.unwrap();
        let address = AgentAddress(listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = TlsAcceptor::from(tls.current()).accept(stream).await;
            }
        });
        address
    }

    fn facts(issued: &Issued) -> CertificateFacts {
        CertificateFacts::of_pem(issued.certificate_pem.as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn an_agent_is_spoken_to_with_the_certificate_of_its_host_and_no_other() {
        install_crypto_provider();
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.db")).await.unwrap();
        let authority = CertificateAuthority::load_or_create(directory.path()).unwrap();
        let [caller, by_hand, own] =
            [Role::Coordinator, Role::Agent, Role::Agent].map(|role| authority.issue(role, "test", &[HOST]).unwrap());
        let tls = AgentTls::new(&by_hand.identity(&authority)).unwrap();
        let calls = CallerTls::new(&caller.identity(&authority)).unwrap();
        let pool = AgentPool::guarded(calls, std::sync::Arc::new(SqlGate { store: store.clone() }));
        let agent = pool.agent(agent(tls.clone()).await);
        let told = async || agent.describe_host().await.unwrap_err();

        assert!(matches!(told().await, CallError::Unknown { .. }), "what was made by hand is let through");
        let mut transaction = store.begin().await.unwrap();
        certificates::insert(&mut transaction, HOST, &facts(&own)).await.unwrap();
        transaction.commit().await.unwrap();
        let other = told().await;
        let CallError::Distrusted { source: Distrust::OtherCertificate { shown, .. }, .. } = other else {
            panic!("{other}")
        };
        assert_eq!(shown, facts(&by_hand).fingerprint);

        tls.replace(&own.identity(&authority)).unwrap();
        assert!(matches!(told().await, CallError::Unknown { .. }), "the host's own is let through");
        let mut transaction = store.begin().await.unwrap();
        let found =
            certificates::trust(&mut transaction, &[HOST]).await.unwrap()[&HOST].standing(facts(&own).fingerprint);
        assert_eq!(found, Standing::Trusted, "and it was seen");
        certificates::revoke(&mut transaction, HOST, "admin").await.unwrap();
        transaction.commit().await.unwrap();
        let revoked = told().await.to_string();
        assert!(revoked.contains("host 127.0.0.1 is revoked since") && revoked.contains("by admin"), "{revoked}");
    }
}
