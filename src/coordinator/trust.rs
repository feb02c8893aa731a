//! Which agents are spoken to, as the store has it: asked on every connection, so that nothing in memory can be older.

use super::{
    connection::{DialError, Distrust, Gate},
    store::{
        Store, StoreError,
        agent_certificates::{self as certificates, Revocation, Standing},
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
            let mut reader = self.store.readers().acquire().await.map_err(|error| undecided(error.into()))?;
            let revoked = certificates::revocation(&mut reader, host).await.map_err(undecided)?;
            if let Some(Revocation { since, by }) = revoked {
                return Err(Distrust::Revoked { host, since, by }.into());
            }
            let Some(shown) = shown else { return Ok(()) };
            let standing = certificates::standing(&mut reader, host, shown).await.map_err(undecided)?;
            drop(reader);
            match standing {
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
