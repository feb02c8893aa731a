use super::{Endpoint, HTTP2, Identity, TlsError, certificate::first};
use crate::files;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Serves gRPC on a database host.
    Agent,
    /// Calls agents.
    Coordinator,
    /// Serves the REST API.
    Rest,
}

/// A new certificate with its key.
pub struct Issued {
    pub certificate_pem: String,
    pub key_pem: Zeroizing<String>,
}

impl Issued {
    /// Writes `{stem}.pem` and, readable by the owner only, `{stem}.key`.
    pub fn write(&self, directory: &Path, stem: &str) -> Result<(PathBuf, PathBuf), TlsError> {
        let (certificate, key) = (directory.join(format!("{stem}.pem")), directory.join(format!("{stem}.key")));
        replace(&key, self.key_pem.as_bytes(), 0o600)?;
        replace(&certificate, self.certificate_pem.as_bytes(), 0o644)?;
        Ok((certificate, key))
    }

    /// Trusts who comes from `authority`.
    pub fn identity(&self, authority: &CertificateAuthority) -> Identity {
        Identity {
            ca_pem: authority.certificate_pem.clone().into(),
            certificate_pem: self.certificate_pem.clone().into(),
            key_pem: self.key_pem.as_bytes().to_vec().into(),
        }
    }

    /// For a server that asks nobody for a certificate. It sends the authority's along, because an agent that is to be
    /// enrolled knows nothing but that one's fingerprint.
    pub fn public_server(&self, authority: &CertificateAuthority) -> Result<rustls::ServerConfig, TlsError> {
        let (_, mut own, key) = self.identity(authority).parse()?;
        own.push(first(authority.certificate_pem.as_bytes())?);
        let mut config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(own, key)?;
        config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The authority that the coordinator makes on its first start.
pub struct CertificateAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    certificate_pem: String,
}

const AUTHORITY_LIFE: std::time::Duration = std::time::Duration::from_secs(3650 * 24 * 3600);
/// How long a certificate is good for after it was issued.
pub const CERTIFICATE_LIFE: std::time::Duration = std::time::Duration::from_secs(CERTIFICATE_DAYS * 24 * 3600);
/// When it is renewed. Half of its life is well before two thirds, so that what is in the way has months to be noticed.
pub const RENEW_AFTER: std::time::Duration = std::time::Duration::from_secs(CERTIFICATE_DAYS * 12 * 3600);
const CERTIFICATE_DAYS: u64 = 365;

impl CertificateAuthority {
    /// Reads `ca.pem` and `ca.key` of `directory`; makes them if neither is there.
    pub fn load_or_create(directory: &Path) -> Result<Self, TlsError> {
        let (certificate_path, key_path) = (directory.join("ca.pem"), directory.join("ca.key"));
        let key = match fs::read_to_string(&key_path) {
            Ok(pem) => {
                let pem = Zeroizing::new(pem);
                KeyPair::from_pem(&pem).map_err(|source| TlsError::Content { path: key_path.clone(), source })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !certificate_path.exists() => {
                let key = KeyPair::generate().map_err(TlsError::Issue)?;
                replace(&key_path, Zeroizing::new(key.serialize_pem()).as_bytes(), 0o600)?;
                key
            }
            Err(source) => return Err(TlsError::File { path: key_path, source }),
        };
        // Only the name and the key of an issuer enter what it signs, so a fresh object around the same key is the
        // same authority; the certificate on disk stays the one that agents trust.
        let issuer = CertifiedIssuer::self_signed(authority_params(), key).map_err(TlsError::Issue)?;
        let certificate_pem = match fs::read_to_string(&certificate_path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pem = issuer.pem();
                replace(&certificate_path, pem.as_bytes(), 0o644)?;
                pem
            }
            Err(source) => return Err(TlsError::File { path: certificate_path, source }),
        };
        Ok(Self { issuer, certificate_pem })
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub(super) fn issuer(&self) -> &CertifiedIssuer<'static, KeyPair> {
        &self.issuer
    }

    /// A certificate for `name`, valid at `addresses`.
    pub fn issue(&self, role: Role, name: &str, addresses: &[IpAddr]) -> Result<Issued, TlsError> {
        let endpoints: Vec<Endpoint> = addresses.iter().copied().map(Into::into).collect();
        self.issue_at(role, name, &endpoints)
    }

    /// A certificate for `name`, valid at `endpoints`.
    pub fn issue_at(&self, role: Role, name: &str, endpoints: &[Endpoint]) -> Result<Issued, TlsError> {
        let names = std::iter::once(name.to_owned()).chain(endpoints.iter().map(ToString::to_string));
        let mut params = CertificateParams::new(names.collect::<Vec<_>>()).map_err(TlsError::Issue)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![match role {
            Role::Agent | Role::Rest => ExtendedKeyUsagePurpose::ServerAuth,
            Role::Coordinator => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        (params.not_before, params.not_after) = validity(CERTIFICATE_LIFE);
        let key = KeyPair::generate().map_err(TlsError::Issue)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(TlsError::Issue)?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: Zeroizing::new(key.serialize_pem()) })
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "oblet authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity(AUTHORITY_LIFE);
    params
}

/// From an hour ago, so that a clock that is a little late does not refuse a fresh certificate.
pub(super) fn validity(life: std::time::Duration) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::from(std::time::SystemTime::now());
    (now - Duration::hours(1), now + life)
}

/// As [`files::replace`].
pub(super) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), TlsError> {
    files::replace(path, content, mode).map_err(|source| TlsError::File { path: path.into(), source })
}
