//! The coordinator, as a host sees it that knows nothing of it but an address and a fingerprint.

use super::{Enrollment, time};
use crate::tls::{PinFailure, PinnedAuthority, is_about_time};
use reqwest::{StatusCode, Url, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;
use std::{net::IpAddr, sync::Arc, time::Duration};

const PATH: &str = "/api/v2/compute/hosts/enroll";
const DEADLINE: Duration = Duration::from_secs(30);
const MAX_ANSWER_BYTES: usize = 256 << 10;

/// Why the coordinator issued no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("{0} is not the address of a coordinator, such as https://192.0.2.1:8443")]
    Address(Url),
    #[error("no connection can be prepared")]
    Prepare(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{address} is a different coordinator")]
    Stranger {
        address: Url,
        #[source]
        source: Box<PinFailure>,
    },
    #[error("the certificate of {address} is not valid at this host's time, {}", time(*.now))]
    Clock {
        address: Url,
        now: i64,
        #[source]
        source: Box<rustls::Error>,
    },
    #[error("{address} cannot be reached")]
    Unreachable {
        address: Url,
        #[source]
        source: reqwest::Error,
    },
    #[error("{message}")]
    Refused { message: String, next_move: Option<String> },
    #[error("the response is invalid ({0})")]
    Answer(StatusCode),
}

impl AskError {
    pub(super) fn next_move(&self) -> String {
        let text = match self {
            Self::Address(_) => "copy the whole line that oblet host add --token printed",
            Self::Prepare(_) => "report this with the log",
            Self::Stranger { .. } => {
                "somebody else answers there, or the coordinator has another authority now: compare the fingerprint \
                 with what oblet host add --token prints, and do not go on before they agree"
            }
            Self::Clock { .. } => "set the clock of this host (chronyc makestep), then run the same line again",
            Self::Unreachable { .. } => {
                "see that the coordinator runs and that its port is open to this host, then run the same line again"
            }
            Self::Refused { next_move: Some(next_move), .. } => next_move,
            Self::Refused { .. } => "see the coordinator's log",
            Self::Answer(_) => "see that the address is that of an oblet coordinator of this version",
        };
        text.to_owned()
    }
}

/// What a host gets for its token.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    pub(super) address: IpAddr,
    pub(super) certificate_pem: String,
    pub(super) authority_pem: String,
}

#[derive(Deserialize)]
struct Envelope {
    data: Option<Answer>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Refusal {
    message: String,
    next_move: Option<String>,
}

pub(super) struct Coordinator {
    http: reqwest::Client,
    address: Url,
    pinned: Arc<PinnedAuthority>,
    now: i64,
}

impl Coordinator {
    pub(super) fn new(enrollment: &Enrollment) -> Result<Self, AskError> {
        let Enrollment { coordinator: address, fingerprint, source, now, .. } = enrollment;
        if address.scheme() != "https" || address.host().is_none() || !address.username().is_empty() {
            return Err(AskError::Address(address.clone()));
        }
        let pinned = PinnedAuthority::new(*fingerprint);
        let tls = pinned.client(*now).map_err(|error| AskError::Prepare(error.into()))?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            // The token goes to whom the fingerprint belongs, and nowhere else.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .local_address(*source)
            .timeout(DEADLINE)
            .build()
            .map_err(|error| AskError::Prepare(error.into()))?;
        Ok(Self { http, address: address.clone(), pinned, now: *now })
    }

    pub(super) async fn ask(&self, token: &SecretString, request_pem: &str) -> Result<Answer, AskError> {
        let mut url = self.address.clone();
        url.set_path(PATH);
        let body = json!({"token": token.expose_secret(), "requestPem": request_pem, "time": self.now_text()});
        let sent = self.http.post(url).json(&body).send().await;
        let mut response = sent.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(AskError::Answer(status));
            }
            bytes.extend_from_slice(&chunk);
        }
        match serde_json::from_slice(&bytes) {
            Ok(Envelope { data: Some(answer), .. }) if status.is_success() => Ok(answer),
            Ok(Envelope { error: Some(Refusal { message, next_move }), .. }) => {
                Err(AskError::Refused { message, next_move })
            }
            Ok(_) | Err(_) => Err(AskError::Answer(status)),
        }
    }

    fn now_text(&self) -> String {
        jiff::Timestamp::from_microsecond(self.now).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
    }

    /// What the verifier noted says more than the error of the connection does.
    fn unreachable(&self, error: reqwest::Error) -> AskError {
        let address = self.address.clone();
        match self.pinned.failure() {
            Some(PinFailure::Invalid(source)) if is_about_time(&source) => {
                AskError::Clock { address, now: self.now, source: Box::new(source) }
            }
            Some(failure) => AskError::Stranger { address, source: Box::new(failure) },
            None => AskError::Unreachable { address, source: error.without_url() },
        }
    }
}
