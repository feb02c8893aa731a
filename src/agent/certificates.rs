//! Renewal of the agent's certificate, which the coordinator begins: a key for a certificate to come, and then the
//! certificate, shown on connections to come while those that are there go on.

use crate::{
    blocking,
    clock::now_micros,
    rpc::Refused,
    telemetry::chain,
    tls::{AgentTls, CertificateFacts, Expected, Identity, IdentityPaths, TlsError, UnfitCertificate},
};
use std::sync::Arc;
use tokio::sync::Mutex;

/// The identity of an agent that can exchange it. One exchange at a time.
pub(super) struct Certificates {
    paths: IdentityPaths,
    tls: AgentTls,
    turn: Mutex<()>,
}

/// What the agent has no way to exchange.
pub(super) fn not_renewable() -> Refused {
    Refused::Precondition {
        reason: "NOT_RENEWABLE",
        subject: "the certificate".into(),
        problem: "was not given to this agent as files that it may exchange".into(),
    }
}

impl Certificates {
    pub(super) fn new(paths: IdentityPaths, tls: AgentTls) -> Arc<Self> {
        Arc::new(Self { paths, tls, turn: Mutex::default() })
    }

    pub(super) async fn request(&self) -> Result<String, Refused> {
        let _turn = self.turn.lock().await;
        let paths = self.paths.clone();
        let request = blocking::run(move || paths.request()).await.map_err(|error| Refused::Internal(chain(&error)))?;
        request.map_err(refused)
    }

    pub(super) async fn install(&self, certificate_pem: String) -> Result<(), Refused> {
        let _turn = self.turn.lock().await;
        let paths = self.paths.clone();
        let installed = blocking::run(move || install(&paths, &certificate_pem));
        let (facts, identity) = match installed.await.map_err(|error| Refused::Internal(chain(&error)))? {
            Ok(installed) => installed,
            Err(UnfitCertificate::Tls(error)) => return Err(refused(error)),
            Err(unfit) => {
                tracing::warn!(error = chain(&unfit), "a certificate from the coordinator was not taken");
                return Err(Refused::Precondition {
                    reason: "UNFIT_CERTIFICATE",
                    subject: "the certificate".into(),
                    problem: format!("was not taken: {}", chain(&unfit)),
                });
            }
        };
        self.tls.replace(&identity).map_err(refused)?;
        tracing::info!(serial = facts.serial, not_after_us = facts.not_after, "the agent has a new certificate");
        Ok(())
    }
}

/// A certificate has to come from the authority of the present one, for the host that the present one names.
fn install(paths: &IdentityPaths, certificate_pem: &str) -> Result<(CertificateFacts, Identity), UnfitCertificate> {
    let live = paths.read()?;
    let addresses = CertificateFacts::of_pem(&live.certificate_pem)?.addresses;
    let authority_pem = String::from_utf8_lossy(&live.ca_pem);
    let expected = Expected { authority_pem: &authority_pem, addresses: &addresses, now: now_micros() };
    let facts = paths.install(certificate_pem, &expected)?;
    Ok((facts, paths.read()?))
}

fn refused(error: TlsError) -> Refused {
    let full = |source: &std::io::Error| source.kind() == std::io::ErrorKind::StorageFull;
    match &error {
        TlsError::File { source, .. } if full(source) => Refused::DiskFull(chain(&error)),
        _ => Refused::Internal(chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{CertificateAuthority, Role};
    use std::{net::IpAddr, time::Duration};

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    #[tokio::test]
    async fn only_the_hosts_own_certificate_takes_the_place_of_the_present_one() {
        crate::tls::install_crypto_provider();
        let directory = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::load_or_create(directory.path()).unwrap();
        let (certificate, key) =
            authority.issue(Role::Agent, "agent", &[HOST]).unwrap().write(directory.path(), "agent").unwrap();
        let paths = IdentityPaths { ca: directory.path().join("ca.pem"), certificate, key };
        let tls = AgentTls::new(&paths.read().unwrap()).unwrap();
        let certificates = Certificates::new(paths.clone(), tls.clone());
        let before = tls.current();
        let sign = async |address: IpAddr| {
            let request = certificates.request().await.unwrap();
            authority.sign_agent(&request, address, Duration::from_secs(60)).unwrap()
        };

        let elsewhere = sign("192.0.2.8".parse().unwrap()).await.certificate_pem;
        let refused = certificates.install(elsewhere).await.unwrap_err();
        assert!(matches!(refused, Refused::Precondition { reason: "UNFIT_CERTIFICATE", .. }), "{refused}");
        assert!(Arc::ptr_eq(&before, &tls.current()));

        let signed = sign(HOST).await;
        certificates.install(signed.certificate_pem).await.unwrap();
        assert!(!Arc::ptr_eq(&before, &tls.current()));
        assert_eq!(paths.working().map(|facts| facts.serial), Some(signed.facts.serial));
    }
}
