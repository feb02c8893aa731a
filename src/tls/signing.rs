//! Signing requests: an agent's key is made on its host, and what its certificate says is decided by the authority.

use super::{CertificateAuthority, CertificateFacts, TlsError, certificate::first};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::{net::IpAddr, time::Duration};
use zeroize::Zeroizing;

/// A key that has left its host never, and a request for its certificate.
pub struct Requested {
    pub key_pem: Zeroizing<String>,
    pub request_pem: String,
}

impl Requested {
    /// Makes a key.
    pub fn generate() -> Result<Self, TlsError> {
        Self::of(&KeyPair::generate().map_err(TlsError::Issue)?)
    }

    /// Asks for another certificate of a key that was made before.
    pub fn for_key(key_pem: &str) -> Result<Self, TlsError> {
        Self::of(&KeyPair::from_pem(key_pem).map_err(TlsError::Issue)?)
    }

    /// The request names nobody: the authority knows whom it signs for.
    fn of(key: &KeyPair) -> Result<Self, TlsError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(key).and_then(|request| request.pem()).map_err(TlsError::Issue)?;
        Ok(Self { key_pem: Zeroizing::new(key.serialize_pem()), request_pem: request })
    }
}

/// A certificate for a key that somebody else holds.
#[derive(Debug)]
pub struct Signed {
    pub certificate_pem: String,
    pub facts: CertificateFacts,
}

/// Why a request is not signed.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    #[error("the signing request cannot be read, or is not signed with its own key")]
    Unreadable(#[source] rcgen::Error),
    /// It asks for more than the host is entitled to.
    #[error("the signing request asks for {0}")]
    Forged(String),
    #[error("the certificate cannot be created")]
    Sign(#[from] TlsError),
}

/// Longest signing request that is read; those of the largest keys have a tenth of it.
const MAX_REQUEST_BYTES: usize = 16 << 10;
const SERIAL_BYTES: usize = 16;

impl CertificateAuthority {
    /// A certificate with which an agent serves at `address`, and at no other. Of the request only the key is taken; one
    /// that asks for anything else than it gets is refused.
    pub fn sign_agent(&self, request_pem: &str, address: IpAddr, life: Duration) -> Result<Signed, SigningError> {
        if request_pem.len() > MAX_REQUEST_BYTES {
            return Err(SigningError::Unreadable(rcgen::Error::CouldNotParseCertificationRequest));
        }
        let mut request = CertificateSigningRequestParams::from_pem(request_pem).map_err(SigningError::Unreadable)?;
        if let Some(asked) = unentitled(&request.params, address) {
            return Err(SigningError::Forged(asked));
        }
        request.params = agent_params(address, life).map_err(SigningError::Sign)?;
        let certificate = request.signed_by(self.issuer()).map_err(TlsError::Issue)?;
        Ok(Signed { facts: CertificateFacts::of_der(certificate.der())?, certificate_pem: certificate.pem() })
    }

    /// By which agents know this authority before they have anything of it.
    pub fn fingerprint(&self) -> Result<super::Fingerprint, TlsError> {
        Ok(super::Fingerprint::of(&first(self.certificate_pem().as_bytes())?))
    }
}

fn agent_params(address: IpAddr, life: Duration) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::new(vec![address.to_string()]).map_err(TlsError::Issue)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, address.to_string());
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    (params.not_before, params.not_after) = super::authority::validity(life);
    let mut serial = [0; SERIAL_BYTES];
    SystemRandom::new().fill(&mut serial).map_err(|_unspecified| TlsError::Random)?;
    // Positive, and of one length in any notation.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

/// The first thing in a request that the host is not entitled to.
fn unentitled(asked: &CertificateParams, address: IpAddr) -> Option<String> {
    let own = address.to_string();
    let text = |value: &DnValue| match value {
        DnValue::Utf8String(text) => text.clone(),
        DnValue::PrintableString(text) => text.as_str().to_owned(),
        other => format!("{other:?}"),
    };
    for (kind, value) in asked.distinguished_name.iter() {
        if *kind != DnType::CommonName || text(value) != own {
            return Some(format!("the subject {:?}", text(value)));
        }
    }
    if let Some(name) = asked.subject_alt_names.iter().find(|name| **name != SanType::IpAddress(address)) {
        return Some(match name {
            SanType::IpAddress(address) => format!("the address {address}"),
            SanType::DnsName(name) => format!("the name {:?}", name.as_str()),
            other => format!("the name {other:?}"),
        });
    }
    if asked.extended_key_usages.iter().any(|usage| *usage != ExtendedKeyUsagePurpose::ServerAuth) {
        return Some("more than to serve".to_owned());
    }
    if asked.key_usages.iter().any(|usage| *usage != KeyUsagePurpose::DigitalSignature) {
        return Some("more than to sign handshakes".to_owned());
    }
    matches!(asked.is_ca, IsCa::Ca(_)).then(|| "an authority of its own".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::BasicConstraints;

    const LIFE: Duration = Duration::from_secs(3600);

    type Change = Box<dyn FnOnce(&mut CertificateParams)>;

    fn authority() -> CertificateAuthority {
        CertificateAuthority::load_or_create(tempfile::tempdir().unwrap().path()).unwrap()
    }

    fn host() -> IpAddr {
        "192.0.2.7".parse().unwrap()
    }

    fn request(change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    #[test]
    fn a_request_gets_the_name_that_the_authority_knows() {
        let authority = authority();
        let requested = Requested::generate().unwrap();
        let signed = authority.sign_agent(&requested.request_pem, host(), LIFE).unwrap();
        assert_eq!(signed.facts.addresses, [host()]);
        assert_eq!(signed.facts.serial.len(), 2 * SERIAL_BYTES);
        let root = first(authority.certificate_pem().as_bytes()).unwrap();
        let certificate = first(signed.certificate_pem.as_bytes()).unwrap();
        let verify = |address: IpAddr, now| super::super::verify(&certificate, root.clone(), &address.into(), now);
        let now = crate::clock::now_micros();
        verify(host(), now).unwrap();
        assert!(verify("192.0.2.8".parse().unwrap(), now).is_err());
        let late = verify(host(), signed.facts.not_after + 1_000_000).unwrap_err();
        assert!(super::super::is_about_time(&late), "{late}");
    }

    #[test]
    fn two_certificates_of_one_key_have_two_serials() {
        let authority = authority();
        let requested = Requested::generate().unwrap();
        let again = Requested::for_key(&requested.key_pem).unwrap();
        let serials = [&requested, &again]
            .map(|asked| authority.sign_agent(&asked.request_pem, host(), LIFE).unwrap().facts.serial);
        assert_ne!(serials[0], serials[1]);
    }

    #[test]
    fn a_request_for_more_than_the_host_is_refused() {
        let authority = authority();
        let forged: [(&str, Change); 6] = [
            ("subject", Box::new(|params| params.distinguished_name.push(DnType::CommonName, "oblet-coordinator"))),
            ("name", Box::new(|params| params.subject_alt_names.push(SanType::DnsName("db2".try_into().unwrap())))),
            ("address", Box::new(|params| params.subject_alt_names.push(SanType::IpAddress([192, 0, 2, 8].into())))),
            ("serve", Box::new(|params| params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth))),
            ("handshakes", Box::new(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign))),
            ("authority", Box::new(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ];
        for (what, change) in forged {
            let refused = authority.sign_agent(&request(change), host(), LIFE).unwrap_err();
            assert!(matches!(&refused, SigningError::Forged(asked) if asked.contains(what)), "{what}: {refused:?}");
        }
        let own = request(|params| params.subject_alt_names.push(SanType::IpAddress(host())));
        authority.sign_agent(&own, host(), LIFE).unwrap();
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let authority = authority();
        for wrong in ["", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"] {
            assert!(matches!(authority.sign_agent(wrong, host(), LIFE), Err(SigningError::Unreadable(_))));
        }
    }
}
