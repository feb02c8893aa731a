//! Fetches the metrics of an instance the way Prometheus would, with a bound on time and size.

use super::exposition::{self, Malformed, Summary};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

const DEADLINE: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub(in crate::agent::host) enum ScrapeError {
    #[error("the metrics port did not answer")]
    Unreachable(#[from] reqwest::Error),
    #[error("the metrics port answered {0}")]
    Status(reqwest::StatusCode),
    #[error("the metrics are longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("the metrics are not UTF-8")]
    Encoding(#[from] std::string::FromUtf8Error),
    #[error("the metrics are not in Prometheus' text format")]
    Malformed(#[from] Malformed),
}

pub(in crate::agent::host) struct Scraper(reqwest::Client);

impl Scraper {
    pub(in crate::agent::host) fn new() -> Result<Self, reqwest::Error> {
        // The client asks for a provider even where it only speaks plain HTTP; a second installation is refused and fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self(reqwest::Client::builder().no_proxy().timeout(DEADLINE).build()?))
    }

    /// Valid exposition text is served at `/metrics`.
    pub(in crate::agent::host) async fn check(&self, address: IpAddr, port: u16) -> Result<Summary, ScrapeError> {
        let url = format!("http://{}/metrics", SocketAddr::new(address, port));
        let mut response = self.0.get(url).send().await?;
        if !response.status().is_success() {
            return Err(ScrapeError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(ScrapeError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(exposition::check(&String::from_utf8(body)?)?)
    }
}
