//! Which agents are spoken to, as the store has it: asked on every connection, so that nothing in memory can be older.

use super::{
    connection::{DialError, Distrust, Gate},
    store::{
        Store, StoreError,
        agent_certificates::{self as certificates, Standing},
    },
};
use crate::tls::Fingerprint;
use futures_util::future::BoxFuture;
use std::net::IpAddr;

pub struct SqlGate {
    pub store: Store,
}

impl Gate for SqlGate {
    fn check(&self, host: IpAddr, shown: Fingerprint) -> BoxFuture<'_, Result<(), DialError>> {
        Box::pin(async move {
            match self.standing(host, shown).await.map_err(|error| DialError::Undecided(Box::new(error)))? {
                Standing::Trusted | Standing::FirstSeen => Ok(()),
                Standing::Other => Err(Distrust::OtherCertificate { host, shown }.into()),
                Standing::Revoked { since, by } => Err(Distrust::Revoked { host, since, by }.into()),
            }
        })
    }
}

impl SqlGate {
    async fn standing(&self, host: IpAddr, shown: Fingerprint) -> Result<Standing, StoreError> {
        let mut reader = self.store.readers().acquire().await?;
        let standing = certificates::standing(&mut reader, host, shown).await?;
        drop(reader);
        if standing == Standing::FirstSeen {
            let mut transaction = self.store.begin().await?;
            certificates::seen(&mut transaction, host, shown).await?;
            transaction.commit().await?;
            tracing::info!(%host, certificate = %shown, "the agent is seen with its certificate");
        }
        Ok(standing)
    }
}
