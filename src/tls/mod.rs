//! Certificates: the coordinator's own authority, and the identities it issues.
//!
//! Who may call whom is settled by the extended key usage: an agent's certificate serves and never calls, the
//! coordinator's certificate calls agents, so one agent cannot command another.

mod authority;
mod certificate;
mod endpoint;
mod exchange;
mod pin;
mod reloadable;
mod signing;
#[cfg(test)]
pub(crate) mod testing;

pub use authority::{CERTIFICATE_LIFE, CertificateAuthority, Issued, RENEW_AFTER, Role};
pub use certificate::{CertificateFacts, Fingerprint, NoFingerprint, is_about_time, verify};
pub use endpoint::{BadEndpoint, Endpoint};
pub use exchange::{Expected, IdentityPaths, UnfitCertificate};
pub use pin::{PinFailure, PinnedAuthority};
pub use reloadable::{AgentTls, CallerTls, Reloadable, Side};
pub use signing::{Requested, Signed, SigningError};

use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// What can go wrong with certificates.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path} cannot be read or written")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not a usable certificate or key")]
    Content {
        path: PathBuf,
        #[source]
        source: rcgen::Error,
    },
    #[error("the {what} cannot be read")]
    Pem {
        what: &'static str,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("certificate and key cannot be used together")]
    Unfit(#[from] rustls::Error),
    #[error("clients cannot be verified")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("a certificate cannot be created")]
    Issue(#[source] rcgen::Error),
    #[error("the certificate is malformed")]
    Malformed,
    #[error("the system returned no random bytes")]
    Random,
}

/// Chooses ring for the whole process. Every `main` and every test that uses TLS calls it first; calling it again is harmless.
pub fn install_crypto_provider() {
    // An error only says that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The files that make up one side of mutual TLS, read and kept in memory.
#[derive(Clone)]
pub struct Identity {
    pub ca_pem: Vec<u8>,
    pub certificate_pem: Vec<u8>,
    pub key_pem: zeroize::Zeroizing<Vec<u8>>,
}

impl Identity {
    pub fn read(ca: &Path, certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |path: &Path| std::fs::read(path).map_err(|source| TlsError::File { path: path.into(), source });
        Ok(Self { ca_pem: read(ca)?, certificate_pem: read(certificate)?, key_pem: read(key)?.into() })
    }

    /// For the agent: only clients with a certificate of the authority, made for calling, get in.
    pub fn server(&self) -> Result<rustls::ServerConfig, TlsError> {
        let (roots, own, key) = self.parse()?;
        let verifier = WebPkiClientVerifier::builder(roots.into()).build()?;
        let mut config =
            rustls::ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(own, key)?;
        config.alpn_protocols.push(HTTP2.to_vec());
        Ok(config)
    }

    /// For the coordinator: an agent has to prove that the authority knows it by the address that is called.
    pub fn client(&self) -> Result<rustls::ClientConfig, TlsError> {
        let (roots, own, key) = self.parse()?;
        let mut config =
            rustls::ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(own, key)?;
        config.alpn_protocols.push(HTTP2.to_vec());
        Ok(config)
    }

    fn parse(&self) -> Result<(rustls::RootCertStore, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let pem = |what| move |source| TlsError::Pem { what, source };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.ca_pem) {
            roots.add(certificate.map_err(pem("authority's certificate"))?)?;
        }
        let own: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate_pem).collect();
        let own = own.map_err(pem("certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key_pem).map_err(pem("key"))?;
        Ok((roots, own, key))
    }
}

/// gRPC is HTTP/2.
const HTTP2: &[u8] = b"h2";
