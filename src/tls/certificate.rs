//! What stands in a certificate, and whether it fits.

use super::TlsError;
use rustls::{
    CertificateError, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use sha2::{Digest as _, Sha256};
use std::{fmt, net::IpAddr, str::FromStr, sync::Arc, time::Duration};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

/// SHA-256 of a certificate's DER, by which people compare certificates: `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is \"sha256:\" and 64 hexadecimal digits")]
pub struct NoFingerprint;

impl FromStr for Fingerprint {
    type Err = NoFingerprint;

    fn from_str(text: &str) -> Result<Self, NoFingerprint> {
        let digits = text.strip_prefix("sha256:").filter(|digits| digits.len() == 64 && digits.is_ascii());
        let digits = digits.ok_or(NoFingerprint)?.as_bytes();
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let nibble = |digit: u8| char::from(digit).to_digit(16).ok_or(NoFingerprint);
            let value = pair.iter().try_fold(0, |value, digit| Ok(value * 16 + nibble(*digit)?))?;
            *byte = u8::try_from(value).map_err(|_too_large| NoFingerprint)?;
        }
        Ok(Self(bytes))
    }
}

/// What is told and decided by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Hexadecimal digits.
    pub serial: String,
    pub fingerprint: Fingerprint,
    /// Microseconds since 1970.
    pub not_before: i64,
    /// Microseconds since 1970.
    pub not_after: i64,
    /// IP addresses that it is valid for.
    pub addresses: Vec<IpAddr>,
}

const SECOND: i64 = 1_000_000;

impl CertificateFacts {
    /// Of the first certificate in a PEM text.
    pub fn of_pem(pem: &[u8]) -> Result<Self, TlsError> {
        Self::of_der(&first(pem)?)
    }

    pub fn of_der(der: &[u8]) -> Result<Self, TlsError> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_malformed| TlsError::Malformed)?;
        let names = parsed.subject_alternative_name().map_err(|_malformed| TlsError::Malformed)?;
        let names = names.map_or(&[][..], |extension| extension.value.general_names.as_slice());
        let validity = parsed.validity();
        Ok(Self {
            serial: parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            fingerprint: Fingerprint::of(der),
            not_before: validity.not_before.timestamp().saturating_mul(SECOND),
            not_after: validity.not_after.timestamp().saturating_mul(SECOND),
            addresses: names.iter().filter_map(address).collect(),
        })
    }
}

fn address(name: &GeneralName<'_>) -> Option<IpAddr> {
    let GeneralName::IPAddress(bytes) = name else { return None };
    let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok()
}

pub(super) fn first(pem: &[u8]) -> Result<CertificateDer<'static>, TlsError> {
    CertificateDer::from_pem_slice(pem).map_err(|source| TlsError::Pem { what: "certificate", source })
}

/// A certificate of `authority` that serves at `address` and is valid at `now`, in microseconds since 1970.
pub fn verify(
    certificate: &CertificateDer<'_>,
    authority: CertificateDer<'static>,
    address: &ServerName<'_>,
    now: i64,
) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::new(ring::default_provider()));
    let verifier = verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?;
    verifier.verify_server_cert(certificate, &[], address, &[], time(now))?;
    Ok(())
}

pub(super) fn time(micros: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
}

/// Whether the time is what is wrong with a certificate, so that the clocks are the first suspects.
pub fn is_about_time(error: &rustls::Error) -> bool {
    use CertificateError as Is;
    let rustls::Error::InvalidCertificate(wrong) = error else { return false };
    matches!(wrong, Is::Expired | Is::ExpiredContext { .. } | Is::NotValidYet | Is::NotValidYetContext { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_it_is_written() {
        let fingerprint = Fingerprint::of(b"certificate");
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        for wrong in ["", "sha256:", "sha256:zz", "sha1:00"] {
            assert_eq!(wrong.parse::<Fingerprint>(), Err(NoFingerprint), "{wrong}");
        }
        let long = format!("sha256:{}", "g".repeat(64));
        assert_eq!(long.parse::<Fingerprint>(), Err(NoFingerprint));
    }
}
