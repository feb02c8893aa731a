//! Trust in an authority of which only the fingerprint is known: that of a coordinator, before an agent is enrolled.

use super::{Fingerprint, certificate, verify};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    time_provider::TimeProvider,
};
use std::sync::{Arc, Mutex, PoisonError};

/// Why a server was not trusted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PinFailure {
    #[error("the server shows {} and no certificate with the fingerprint {expected}", shown(.found))]
    OtherAuthority { expected: Fingerprint, found: Vec<Fingerprint> },
    #[error("the server's certificate is not a valid one of that authority")]
    Invalid(#[source] rustls::Error),
}

fn shown(found: &[Fingerprint]) -> String {
    if found.is_empty() {
        return "no authority".to_owned();
    }
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Trusts servers with a certificate of the authority that has the fingerprint. The server has to send that
/// authority's own certificate behind its own, as one that stands in no list of roots.
#[derive(Debug)]
pub struct PinnedAuthority {
    fingerprint: Fingerprint,
    provider: CryptoProvider,
    failure: Mutex<Option<PinFailure>>,
}

/// The clock by which a connection is judged, as a fixed moment.
#[derive(Debug)]
struct Moment(i64);

impl TimeProvider for Moment {
    fn current_time(&self) -> Option<UnixTime> {
        Some(certificate::time(self.0))
    }
}

impl PinnedAuthority {
    pub fn new(fingerprint: Fingerprint) -> Arc<Self> {
        Arc::new(Self { fingerprint, provider: ring::default_provider(), failure: Mutex::default() })
    }

    /// For one connection at `now`, in microseconds since 1970.
    pub fn client(self: &Arc<Self>, now: i64) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(self.provider.clone());
        let config = ClientConfig::builder_with_details(provider, Arc::new(Moment(now)));
        let config = config.with_safe_default_protocol_versions()?.dangerous();
        Ok(config.with_custom_certificate_verifier(Arc::<Self>::clone(self)).with_no_client_auth())
    }

    /// What the last connection failed by; those who use it may hide that below layers of their own.
    pub fn failure(&self) -> Option<PinFailure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn judge(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), PinFailure> {
        let authority = others.iter().find(|other| Fingerprint::of(other) == self.fingerprint).ok_or_else(|| {
            let found = others.iter().map(|other| Fingerprint::of(other)).collect();
            PinFailure::OtherAuthority { expected: self.fingerprint, found }
        })?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        verify(own, authority.clone().into_owned(), name, now).map_err(PinFailure::Invalid)
    }
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let judged = self.judge(end_entity, intermediates, server_name, now);
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = judged.clone().err();
        match judged {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(PinFailure::Invalid(error)) => Err(error),
            Err(PinFailure::OtherAuthority { .. }) => Err(rustls::CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let schemes = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, schemes)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let schemes = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::now_micros,
        tls::{CertificateAuthority, Role, is_about_time},
    };
    use rustls::pki_types::pem::PemObject as _;

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn only_the_authority_with_the_fingerprint_is_trusted_and_only_at_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::load_or_create(directory.path()).unwrap();
        let host = "192.0.2.1".parse().unwrap();
        let own = der(&authority.issue(Role::Rest, "coordinator", &[host]).unwrap().certificate_pem);
        let root = der(authority.certificate_pem());
        let pinned = PinnedAuthority::new(authority.fingerprint().unwrap());
        let now = now_micros();
        let judge = |pinned: &PinnedAuthority, roots: &[CertificateDer<'_>], host: std::net::IpAddr, now| {
            pinned.verify_server_cert(&own, roots, &host.into(), &[], certificate::time(now)).map(|_| ())
        };
        let roots = [root.clone()];
        judge(&pinned, &roots, host, now).unwrap();
        assert_eq!(pinned.failure(), None);

        assert!(judge(&pinned, &[], host, now).is_err());
        assert!(pinned.failure().unwrap().to_string().contains("shows no authority"));
        assert!(judge(&pinned, &roots, "192.0.2.2".parse().unwrap(), now).is_err());
        let early = judge(&pinned, &roots, host, now - 2 * 3_600_000_000).unwrap_err();
        assert!(is_about_time(&early), "{early}");
        // The certificate itself may be known to anyone; that it is the authority's is what counts.
        let other = PinnedAuthority::new(Fingerprint::of(&own));
        assert!(judge(&other, &[own.clone()], host, now).is_err());
        assert!(matches!(other.failure(), Some(PinFailure::Invalid(_))));
    }
}
