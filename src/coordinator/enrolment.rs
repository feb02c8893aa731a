//! How a host gets its first certificate, and loses its trust.
//!
//!  1. A token is for one address, once, for a time. Whoever holds it can become that host's agent and no other.
//!  2. Who uses a token is looked at before the certificate is made: where it comes from, what its clock says, what its
//!     request asks for. A refusal leaves the token as it was, and a line in the log and in the audit log.
//!  3. The use of the token, the record of the certificate and the audit event are one transaction.
//!  4. Revoking a host and enrolling it are serialised by the store: what comes last holds.

use super::store::{
    Store, StoreError,
    agent::{
        certificates,
        enrolment_tokens::{self as tokens, Draft, EnrolmentToken, TokenStatus, Use},
    },
    audit::{self, Change},
};
use crate::tls::{CertificateAuthority, CertificateFacts, Fingerprint, SigningError, TlsError};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};
use sqlx::AnyConnection;
use std::{net::IpAddr, sync::Arc, time::Duration};
use zeroize::Zeroizing;

/// By how much the clocks of host and coordinator may differ.
pub const MAX_SKEW: Duration = Duration::from_secs(300);
const TOKEN_BYTES: usize = 32;

/// What a host asks for.
pub struct Application<'a> {
    pub token: &'a str,
    pub request_pem: &'a str,
    /// The host's clock, in microseconds since 1970.
    pub host_time: i64,
    /// Where the request comes from.
    pub source: IpAddr,
    pub trace_id: &'a str,
}

/// What a host gets.
#[derive(Debug)]
pub struct Admission {
    pub address: IpAddr,
    pub certificate_pem: String,
    pub facts: CertificateFacts,
}

/// Why a host gets no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    #[error("the token is unknown")]
    UnknownToken,
    #[error("the token was used {} from {}, for the certificate {}", time(.0.at), .0.from, .0.serial)]
    Used(Use),
    #[error("the token was revoked")]
    TokenRevoked,
    #[error("the token expired {}", time(*.0))]
    Expired(i64),
    #[error("the token is for {address}, and came from {source_address}")]
    OtherSource { address: IpAddr, source_address: IpAddr },
    #[error("the clocks differ too much: it is {} on the host and {} on the coordinator", time(*.host), time(*.coordinator))]
    Clock { host: i64, coordinator: i64 },
    #[error("the certificate was not issued")]
    Signing(#[from] SigningError),
    #[error("host {0} is revoked")]
    HostRevoked(IpAddr),
    #[error("the system returned no random bytes")]
    Random,
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn time(micros: i64) -> String {
    format!("{:.3}", Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Gives certificates to agents and takes them away.
pub struct Enrolment {
    store: Store,
    authority: Arc<CertificateAuthority>,
    fingerprint: Fingerprint,
    life: Duration,
}

impl Enrolment {
    /// `life` is that of the certificates.
    pub fn new(store: Store, authority: Arc<CertificateAuthority>, life: Duration) -> Result<Self, TlsError> {
        Ok(Self { fingerprint: authority.fingerprint()?, store, authority, life })
    }

    /// Of the authority's certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub fn authority_pem(&self) -> &str {
        self.authority.certificate_pem()
    }

    /// Makes a token. It is told here and never again.
    pub async fn make_token(
        &self,
        connection: &mut AnyConnection,
        draft: &Draft<'_>,
    ) -> Result<(EnrolmentToken, Zeroizing<String>), EnrolmentError> {
        let mut bytes = Zeroizing::new([0_u8; TOKEN_BYTES]);
        SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_unspecified| EnrolmentError::Random)?;
        let token = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(bytes.as_slice()));
        Ok((tokens::insert(connection, &token, draft).await?, token))
    }

    /// Gives the host of a token its certificate. `now` is in microseconds since 1970.
    pub async fn admit(&self, application: &Application<'_>, now: i64) -> Result<Admission, EnrolmentError> {
        let mut transaction = self.store.begin().await?;
        let Some(token) = tokens::by_token(&mut transaction, application.token).await? else {
            tracing::warn!(source = %application.source, "a host with a token that is not known was refused");
            return Err(EnrolmentError::UnknownToken);
        };
        let judged = judge(&token, application, now)
            .and_then(|()| Ok(self.authority.sign_agent(application.request_pem, token.address, self.life)?));
        let user = format!("enrolment token {}", token.id);
        let object = format!("host {}", token.address);
        let event =
            |action, detail| Change { user: &user, action, object: &object, detail, trace_id: application.trace_id };
        let signed = match judged {
            Ok(signed) => signed,
            Err(refusal) => {
                let why = format!("from {}: {}", application.source, crate::telemetry::chain(&refusal));
                audit::write(&mut transaction, &[event("host.enroll.refuse", &why)]).await?;
                transaction.commit().await.map_err(StoreError::from)?;
                tracing::warn!(host = %token.address, token = token.id, "a host was not enrolled: {why}");
                return Err(refusal);
            }
        };
        let facts = signed.facts;
        let used = Use { at: now, from: application.source.to_string(), serial: facts.serial.clone() };
        if !tokens::mark_used(&mut transaction, token.id, &used).await? {
            return Err(EnrolmentError::Used(used));
        }
        certificates::trust_again(&mut transaction, token.address).await?;
        certificates::insert(&mut transaction, token.address, &facts).await?;
        let detail = format!("from {}: certificate {} until {}", used.from, facts.serial, time(facts.not_after));
        audit::write(&mut transaction, &[event("host.enroll", &detail)]).await?;
        transaction.commit().await.map_err(StoreError::from)?;
        tracing::info!(host = %token.address, token = token.id, "a host was enrolled {detail}");
        Ok(Admission { address: token.address, certificate_pem: signed.certificate_pem, facts })
    }

    /// The host's agent is not trusted any more, and its open tokens are worth nothing; answers whether it was trusted.
    pub async fn revoke(connection: &mut AnyConnection, address: IpAddr, by: &str) -> Result<bool, StoreError> {
        tokens::revoke_all(connection, address).await?;
        certificates::revoke(connection, address, by).await
    }

    /// A further certificate for an agent that proves with its present one who it is.
    pub async fn renew(&self, address: IpAddr, request_pem: &str) -> Result<Admission, EnrolmentError> {
        let signed = self.authority.sign_agent(request_pem, address, self.life)?;
        let mut transaction = self.store.begin().await?;
        // A host that was revoked since it was asked gets nothing any more.
        if certificates::revocation(&mut transaction, address).await?.is_some() {
            return Err(EnrolmentError::HostRevoked(address));
        }
        certificates::insert(&mut transaction, address, &signed.facts).await?;
        transaction.commit().await.map_err(StoreError::from)?;
        Ok(Admission { address, certificate_pem: signed.certificate_pem, facts: signed.facts })
    }

    /// Of the certificates that are made.
    pub fn life(&self) -> Duration {
        self.life
    }

    pub fn store(&self) -> &Store {
        &self.store
    }
}

/// In the order in which an operator wants to hear of it.
fn judge(token: &EnrolmentToken, application: &Application<'_>, now: i64) -> Result<(), EnrolmentError> {
    match (token.status, &token.used) {
        (TokenStatus::Used, Some(used)) => return Err(EnrolmentError::Used(used.clone())),
        (TokenStatus::Revoked | TokenStatus::Used, _) => return Err(EnrolmentError::TokenRevoked),
        (TokenStatus::Open, _) => {}
    }
    if token.expires_at <= now {
        return Err(EnrolmentError::Expired(token.expires_at));
    }
    if !token.any_source && token.address != application.source {
        return Err(EnrolmentError::OtherSource { address: token.address, source_address: application.source });
    }
    if application.host_time.abs_diff(now) > u64::try_from(MAX_SKEW.as_micros()).unwrap_or(u64::MAX) {
        return Err(EnrolmentError::Clock { host: application.host_time, coordinator: now });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
