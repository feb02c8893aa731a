//! Why a coordinator gave no answer, in words that say what to do.

use rustls::{CertificateError, Error as TlsError};
use std::{error::Error, io, iter};

use crate::telemetry;

pub(crate) struct Explanation {
    pub(crate) cause: String,
    pub(crate) next: &'static str,
}

pub(crate) fn explain(url: &str, source: &reqwest::Error) -> Explanation {
    let is_https = url.starts_with("https:");
    let tls = causes(source).find_map(tls_error);
    let parse = causes(source).filter_map(|cause| cause.downcast_ref::<hyper::Error>()).any(hyper::Error::is_parse);
    match tls {
        Some(TlsError::InvalidCertificate(problem)) => distrusted(url, problem),
        Some(TlsError::InvalidMessage(_)) => Explanation {
            cause: format!("the TLS handshake with {url} failed: the port does not speak TLS"),
            next: "name the HTTPS port of the coordinator, by default 8443, with --url (OBLET_URL)",
        },
        Some(problem) => Explanation {
            cause: format!("the TLS handshake with {url} failed: {problem}"),
            next: "check that --url (OBLET_URL) names the HTTPS port of an oblet coordinator",
        },
        None if parse && !is_https => Explanation {
            cause: format!("{url} does not answer in HTTP; it may be an HTTPS port"),
            next: "write https:// instead of http:// in --url (OBLET_URL)",
        },
        None => {
            // The last of reqwest's causes names the reason; the ones before it only say which layer passed it on.
            let reason = telemetry::causes(source).pop().unwrap_or_else(|| source.to_string());
            Explanation {
                cause: format!("{url} cannot be reached: {reason}"),
                next: "check that the coordinator runs and that --url (OBLET_URL) is right",
            }
        }
    }
}

fn distrusted(url: &str, problem: &CertificateError) -> Explanation {
    let (cause, next) = match problem {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            "it was not issued by a trusted authority".to_owned(),
            "copy tls/ca.pem from the coordinator's state directory and name it with --ca (OBLET_CA)",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            "it is not valid for this host name or address".to_owned(),
            "use a name or an address of the coordinator's advertise_addresses in --url (OBLET_URL)",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "it has expired".to_owned(),
            "check the clock of this host; restart the coordinator to renew its certificate",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("it is not valid yet".to_owned(), "check the clocks of this host and of the coordinator")
        }
        other => (other.to_string(), "check --ca (OBLET_CA) and that --url (OBLET_URL) names the coordinator"),
    };
    Explanation { cause: format!("the TLS certificate of {url} is not trusted: {cause}"), next }
}

type Cause<'a> = &'a (dyn Error + 'static);

fn causes(error: Cause<'_>) -> impl Iterator<Item = Cause<'_>> {
    iter::successors(Some(error), |error| below(*error))
}

fn below(error: Cause<'_>) -> Option<Cause<'_>> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        // What an io::Error wraps is not among its sources.
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

fn tls_error(error: Cause<'_>) -> Option<&TlsError> {
    error.downcast_ref()
}
