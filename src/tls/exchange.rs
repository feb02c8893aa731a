//! The three files by which an agent is known, and how they are exchanged for others.
//!
//!  1. A key waits beside the live one, as `{key}.pending`, for its certificate. It is on disk before anyone is asked to
//!     sign it, and used again by the next request, so that a lost answer costs nothing.
//!  2. A certificate is checked first. Then it appears as `{certificate}.pending`, whole and synced, after everything
//!     that belongs to it: that is the decision.
//!  3. The files are renamed, the certificate last. After a crash or on a full disk either nothing was decided, and the
//!     live files are the old ones, or [`IdentityPaths::settle`] renames what is left. Renaming needs no room.

use super::{CertificateFacts, Identity, Requested, TlsError, authority::replace, certificate::first, verify};
use crate::files::{make_directory, sync_directory_of};
use rustls::pki_types::ServerName;
use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Where an agent keeps its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityPaths {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Why a certificate is not taken.
#[derive(Debug, thiserror::Error)]
pub enum UnfitCertificate {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("there is no pending key for the certificate")]
    NoKey,
    #[error("the certificate does not match the pending key")]
    OtherKey(#[source] TlsError),
    #[error("the certificate names no address that this host has now")]
    NoAddress,
    #[error("the certificate is not a valid one of the authority for {address}")]
    Untrusted {
        address: IpAddr,
        #[source]
        source: rustls::Error,
    },
}

/// What a certificate has to fit.
pub struct Expected<'a> {
    pub authority_pem: &'a str,
    /// At least one; the certificate has to be valid at each.
    pub addresses: &'a [IpAddr],
    /// Microseconds since 1970.
    pub now: i64,
}

impl IdentityPaths {
    /// Reads the live files, after an exchange that was decided is carried out.
    pub fn read(&self) -> Result<Identity, TlsError> {
        self.settle()?;
        Identity::read(&self.ca, &self.certificate, &self.key)
    }

    /// What the live certificate says, if the three files can be used together.
    pub fn working(&self) -> Option<CertificateFacts> {
        let identity = self.read().ok()?;
        identity.server().ok()?;
        CertificateFacts::of_pem(&identity.certificate_pem).ok()
    }

    /// A signing request for the key that waits, which is made if there is none, and so are the directories.
    pub fn request(&self) -> Result<String, TlsError> {
        self.settle()?;
        for path in [&self.key, &self.certificate, &self.ca] {
            let directory = directory_of(path);
            make_directory(directory, 0o755).map_err(|source| TlsError::File { path: directory.into(), source })?;
        }
        let path = pending(&self.key);
        let waiting = match fs::read_to_string(&path) {
            Ok(pem) => Requested::for_key(&Zeroizing::new(pem)).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(TlsError::File { path, source }),
        };
        if let Some(requested) = waiting {
            return Ok(requested.request_pem);
        }
        let requested = Requested::generate()?;
        replace(&path, requested.key_pem.as_bytes(), 0o600)?;
        Ok(requested.request_pem)
    }

    /// Takes a certificate for the key that waits, and the authority's own where it is not the live one.
    pub fn install(
        &self,
        certificate_pem: &str,
        expected: &Expected<'_>,
    ) -> Result<CertificateFacts, UnfitCertificate> {
        self.settle()?;
        let key = pending(&self.key);
        let key_pem = match fs::read(&key) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(UnfitCertificate::NoKey),
            Err(source) => return Err(TlsError::File { path: key, source }.into()),
        };
        let identity = Identity {
            ca_pem: expected.authority_pem.as_bytes().to_vec(),
            certificate_pem: certificate_pem.as_bytes().to_vec(),
            key_pem: key_pem.into(),
        };
        identity.server().map_err(UnfitCertificate::OtherKey)?;
        let facts = self.check(certificate_pem, expected)?;
        let authority = pending(&self.ca);
        if fs::read(&self.ca).ok().as_deref() != Some(&identity.ca_pem) {
            replace(&authority, &identity.ca_pem, 0o644)?;
        } else if authority.exists() {
            // Of an exchange that broke off before it was decided. This one would carry it out.
            fs::remove_file(&authority).map_err(|source| TlsError::File { path: authority, source })?;
            sync_directory(&self.ca)?;
        }
        replace(&pending(&self.certificate), &identity.certificate_pem, 0o644)?;
        self.settle()?;
        Ok(facts)
    }

    fn check(&self, certificate_pem: &str, expected: &Expected<'_>) -> Result<CertificateFacts, UnfitCertificate> {
        if expected.addresses.is_empty() {
            return Err(UnfitCertificate::NoAddress);
        }
        let certificate = first(certificate_pem.as_bytes())?;
        let authority = first(expected.authority_pem.as_bytes())?;
        for address in expected.addresses {
            let name = ServerName::IpAddress((*address).into());
            verify(&certificate, authority.clone(), &name, expected.now)
                .map_err(|source| UnfitCertificate::Untrusted { address: *address, source })?;
        }
        Ok(CertificateFacts::of_der(&certificate)?)
    }

    /// Carries out an exchange that was decided and not finished. Doing it again is harmless.
    pub fn settle(&self) -> Result<(), TlsError> {
        if !pending(&self.certificate).exists() {
            return Ok(());
        }
        for path in [&self.key, &self.ca, &self.certificate] {
            let from = pending(path);
            match fs::rename(&from, path) {
                Ok(()) => sync_directory(path)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(TlsError::File { path: from, source }),
            }
        }
        Ok(())
    }
}

fn pending(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pending");
    name.into()
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_directory(path: &Path) -> Result<(), TlsError> {
    sync_directory_of(path).map_err(|source| TlsError::File { path: directory_of(path).into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::now_micros, tls::CertificateAuthority};
    use std::{os::unix::fs::PermissionsExt as _, time::Duration};

    struct Place {
        directory: tempfile::TempDir,
        authority: CertificateAuthority,
        paths: IdentityPaths,
    }

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    impl Place {
        fn new() -> Self {
            crate::tls::install_crypto_provider();
            let directory = tempfile::tempdir().unwrap();
            let authority = CertificateAuthority::load_or_create(tempfile::tempdir().unwrap().path()).unwrap();
            let at = |name: &str| directory.path().join(name);
            let paths = IdentityPaths { ca: at("ca.pem"), certificate: at("agent.pem"), key: at("agent.key") };
            Self { authority, paths, directory }
        }

        fn sign(&self, address: IpAddr) -> String {
            let request = self.paths.request().unwrap();
            self.authority.sign_agent(&request, address, Duration::from_secs(3600)).unwrap().certificate_pem
        }

        fn install(&self, certificate_pem: &str) -> Result<CertificateFacts, UnfitCertificate> {
            let authority_pem = self.authority.certificate_pem();
            let expected = Expected { authority_pem, addresses: &[HOST], now: now_micros() };
            self.paths.install(certificate_pem, &expected)
        }

        fn live(&self) -> Option<String> {
            self.paths.working().map(|facts| facts.serial)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.directory.path()).unwrap().flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
            names.sort_unstable();
            names
        }
    }

    #[test]
    fn a_certificate_takes_the_place_of_the_old_one_with_its_key() {
        let place = Place::new();
        assert_eq!(place.live(), None);
        for _ in 0..2 {
            let facts = place.install(&place.sign(HOST)).unwrap();
            assert_eq!(place.live(), Some(facts.serial));
            assert_eq!(place.names(), ["agent.key", "agent.pem", "ca.pem"]);
        }
        let mode = fs::metadata(&place.paths.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_request_that_was_not_answered_is_made_again_with_its_key() {
        let place = Place::new();
        place.paths.request().unwrap();
        let key = fs::read(pending(&place.paths.key)).unwrap();
        let mode = fs::metadata(pending(&place.paths.key)).unwrap().permissions().mode();
        place.paths.request().unwrap();
        assert_eq!((fs::read(pending(&place.paths.key)).unwrap(), mode & 0o777), (key, 0o600));
        fs::write(pending(&place.paths.key), "damaged").unwrap();
        place.install(&place.sign(HOST)).unwrap();
    }

    #[test]
    fn a_certificate_that_does_not_fit_changes_nothing() {
        let place = Place::new();
        let first = place.install(&place.sign(HOST)).unwrap();
        assert!(matches!(place.install(&place.sign(HOST).replace("CERT", "CURT")), Err(UnfitCertificate::OtherKey(_))));
        let elsewhere = place.sign("192.0.2.8".parse().unwrap());
        assert!(matches!(place.install(&elsewhere), Err(UnfitCertificate::Untrusted { .. })));
        let live = fs::read_to_string(&place.paths.certificate).unwrap();
        assert!(matches!(place.install(&live), Err(UnfitCertificate::OtherKey(_))));
        let foreign = Place::new();
        let request = place.paths.request().unwrap();
        let signed = foreign.authority.sign_agent(&request, HOST, Duration::from_secs(3600)).unwrap();
        assert!(matches!(place.install(&signed.certificate_pem), Err(UnfitCertificate::Untrusted { .. })));
        assert_eq!(place.live(), Some(first.serial));
        fs::remove_file(pending(&place.paths.key)).unwrap();
        assert!(matches!(place.install(&live), Err(UnfitCertificate::NoKey)));
    }

    /// Whatever is the last that a dying program did, the next one has a certificate and the key that belongs to it.
    #[test]
    fn an_exchange_that_was_cut_off_is_finished_or_forgotten() {
        let paths = |place: &Place| [&place.paths.key, &place.paths.ca, &place.paths.certificate].map(Clone::clone);
        for renamed in 0..3 {
            let place = Place::new();
            place.install(&place.sign(HOST)).unwrap();
            let certificate = place.sign(HOST);
            let expected = CertificateFacts::of_pem(certificate.as_bytes()).unwrap().serial;
            fs::write(pending(&place.paths.ca), place.authority.certificate_pem()).unwrap();
            fs::write(pending(&place.paths.certificate), certificate).unwrap();
            for path in &paths(&place)[..renamed] {
                fs::rename(pending(path), path).unwrap();
            }
            assert_eq!(place.live(), Some(expected), "{renamed} of 3 were renamed");
        }
        let place = Place::new();
        let first = place.install(&place.sign(HOST)).unwrap();
        place.paths.request().unwrap();
        fs::write(pending(&place.paths.ca), "half of an auth").unwrap();
        assert_eq!(place.live(), Some(first.serial));
    }

    #[test]
    fn an_authority_of_an_exchange_that_was_never_decided_is_not_taken_by_the_next() {
        let place = Place::new();
        place.install(&place.sign(HOST)).unwrap();
        fs::write(pending(&place.paths.ca), Place::new().authority.certificate_pem()).unwrap();
        let facts = place.install(&place.sign(HOST)).unwrap();
        assert_eq!(fs::read_to_string(&place.paths.ca).unwrap(), place.authority.certificate_pem());
        assert_eq!((place.live(), place.names().len()), (Some(facts.serial), 3));
    }
}
