//! What the coordinator shows of itself: to agents that it calls, and to the clients of its REST API.
//!
//! Both certificates come from its own authority. They are made at the start and again at half of their life, so that
//! none expires in a process that runs for years.

use crate::tls::{CallerTls, CertificateAuthority, Endpoint, Identity, Issued, RENEW_AFTER, Role, TlsError};
use axum_server::tls_rustls::RustlsConfig;
use rustls::pki_types::ServerName;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const TRY_AGAIN_AFTER: Duration = Duration::from_secs(3600);
const NAME: &str = "oblet-coordinator";

pub(in crate::api) struct OwnCertificates {
    authority: Arc<CertificateAuthority>,
    directory: PathBuf,
    endpoints: Vec<Endpoint>,
    calls: CallerTls,
    rest: RustlsConfig,
}

impl OwnCertificates {
    /// Issues both; the one for calls is also written to `directory`, for operators who ask an agent themselves.
    pub(super) fn issue(
        authority: Arc<CertificateAuthority>,
        directory: &Path,
        endpoints: &[Endpoint],
    ) -> Result<Self, TlsError> {
        let (calls, rest) = fresh(&authority, directory, endpoints)?;
        Ok(Self {
            calls: CallerTls::new(&calls)?,
            rest: RustlsConfig::from_config(Arc::new(rest.public_server(&authority)?)),
            authority,
            directory: directory.to_owned(),
            endpoints: endpoints.to_owned(),
        })
    }

    pub(super) fn calls(&self) -> CallerTls {
        self.calls.clone()
    }

    /// Under which the REST certificate is valid, whatever the address.
    pub(super) fn server_name() -> io::Result<ServerName<'static>> {
        ServerName::try_from(NAME).map_err(io::Error::other)
    }

    pub(super) fn rest(&self) -> RustlsConfig {
        self.rest.clone()
    }

    /// Shows fresh certificates on connections to come; on an error the old ones stay.
    pub(super) fn renew(&self) -> Result<(), TlsError> {
        let (calls, rest) = fresh(&self.authority, &self.directory, &self.endpoints)?;
        let rest = rest.public_server(&self.authority)?;
        self.calls.replace(&calls)?;
        self.rest.reload_from_config(Arc::new(rest));
        Ok(())
    }

    /// Renews for ever.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut wait = RENEW_AFTER;
        loop {
            tokio::time::sleep(wait).await;
            let own = Arc::clone(&self);
            let renewed = crate::blocking::run(move || own.renew().map_err(|error| crate::telemetry::chain(&error)));
            wait = match renewed.await.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(()) => {
                    tracing::info!("the coordinator has renewed its own certificates");
                    RENEW_AFTER
                }
                Err(error) => {
                    tracing::error!(error, "the coordinator's own certificates are not renewed; it tries again");
                    TRY_AGAIN_AFTER
                }
            };
        }
    }
}

fn fresh(
    authority: &CertificateAuthority,
    directory: &Path,
    endpoints: &[Endpoint],
) -> Result<(Identity, Issued), TlsError> {
    let calls = authority.issue(Role::Coordinator, NAME, &[])?;
    let rest = authority.issue_at(Role::Rest, NAME, endpoints)?;
    calls.write(directory, "coordinator")?;
    Ok((calls.identity(authority), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(directory: &Path) -> Arc<OwnCertificates> {
        crate::tls::install_crypto_provider();
        let authority = Arc::new(CertificateAuthority::load_or_create(directory).unwrap());
        Arc::new(OwnCertificates::issue(authority, directory, &[]).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn both_certificates_are_exchanged_before_two_thirds_of_their_life() {
        let directory = tempfile::tempdir().unwrap();
        let own = own(directory.path());
        let (calls, rest) = (own.calls().current(), own.rest().get_inner());
        let keeper = tokio::spawn(Arc::clone(&own).keep());
        let limit = tokio::time::Instant::now() + crate::tls::CERTIFICATE_LIFE * 2 / 3;
        while Arc::ptr_eq(&rest, &own.rest().get_inner()) {
            assert!(tokio::time::Instant::now() < limit);
            tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
        }
        assert!(!Arc::ptr_eq(&calls, &own.calls().current()));
        keeper.abort();
    }

    #[test]
    fn what_cannot_be_renewed_stays() {
        let directory = tempfile::tempdir().unwrap();
        let own = own(directory.path());
        let (calls, rest) = (own.calls().current(), own.rest().get_inner());
        directory.close().unwrap();
        assert!(own.renew().is_err());
        assert!(Arc::ptr_eq(&calls, &own.calls().current()));
        assert!(Arc::ptr_eq(&rest, &own.rest().get_inner()));
    }
}
