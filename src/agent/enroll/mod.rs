//! `oblet-agent enroll`: the first certificate of a host, for a one-time token.

mod coordinator;
mod program;

pub use coordinator::AskError;
pub use program::{Flags, main};

use crate::tls::{CertificateFacts, Expected, Fingerprint, IdentityPaths, TlsError, UnfitCertificate};
use coordinator::Coordinator;
use jiff::Timestamp;
use secrecy::SecretString;
use std::net::IpAddr;

/// What an operator says in the line that `oblet host add --token` prints.
pub struct Enrollment {
    /// Such as `https://192.0.2.1:8443`.
    pub coordinator: reqwest::Url,
    /// Of the authority of that coordinator.
    pub fingerprint: Fingerprint,
    pub token: SecretString,
    /// The address of this host to come from, where it has several.
    pub source: Option<IpAddr>,
    pub paths: IdentityPaths,
    /// Also if there is a certificate that works.
    pub force: bool,
    /// This host's clock, in microseconds since 1970.
    pub now: i64,
}

/// A host that has its certificate.
#[derive(Debug)]
pub struct Enrolled {
    /// As the coordinator knows this host.
    pub address: IpAddr,
    pub certificate: CertificateFacts,
}

/// Why a host was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    #[error("this host is enrolled: its certificate {serial} is good until {}", time(*.not_after))]
    Enrolled { serial: String, not_after: i64 },
    #[error("the key of this host cannot be created")]
    Key(#[source] TlsError),
    #[error("the coordinator issued no certificate")]
    Ask(#[from] AskError),
    #[error("the coordinator sent the certificate of another authority: {found}")]
    OtherAuthority { found: Fingerprint },
    #[error("the coordinator's response was rejected")]
    Unfit(#[from] UnfitCertificate),
}

impl EnrollError {
    /// What to do about it.
    pub fn next_move(&self) -> String {
        match self {
            Self::Enrolled { .. } => {
                "nothing is to be done; to replace it all the same, repeat this with --force".into()
            }
            Self::Key(_) => "free disk space, or fix the named directory, and run the same command again".into(),
            Self::Ask(error) => error.next_move(),
            Self::OtherAuthority { .. } | Self::Unfit(_) => {
                "the token is used up: ask for another with oblet host add --token, and see the coordinator's log"
                    .into()
            }
        }
    }
}

fn time(micros: i64) -> String {
    format!("{:.0}", Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Makes a key on this host, has it signed, and puts both where the agent looks for them. An enrolment that broke off
/// leaves what was there, and can be repeated.
pub async fn enroll(enrollment: &Enrollment) -> Result<Enrolled, EnrollError> {
    let Enrollment { paths, now, .. } = enrollment;
    if let Some(facts) = paths.working().filter(|facts| facts.not_after > *now && !enrollment.force) {
        return Err(EnrollError::Enrolled { serial: facts.serial, not_after: facts.not_after });
    }
    // Before the token is spent, so that a full disk costs none.
    let request_pem = paths.request().map_err(EnrollError::Key)?;
    let coordinator = Coordinator::new(enrollment)?;
    let answer = coordinator.ask(&enrollment.token, &request_pem).await?;
    let found = CertificateFacts::of_pem(answer.authority_pem.as_bytes()).map_err(UnfitCertificate::Tls)?.fingerprint;
    if found != enrollment.fingerprint {
        return Err(EnrollError::OtherAuthority { found });
    }
    let expected = Expected { authority_pem: &answer.authority_pem, addresses: &[answer.address], now: *now };
    let certificate = paths.install(&answer.certificate_pem, &expected)?;
    Ok(Enrolled { address: answer.address, certificate })
}
