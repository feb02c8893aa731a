//! Fetches the metrics of an instance the way Prometheus would, with a bound on time and size.

use super::exposition::{self, Malformed, Summary};
use reqwest::redirect;
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
        // Whoever has taken the port could send the agent to any address that only the agent reaches.
        let client = reqwest::Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(DEADLINE);
        // Else the certificates of the system, some hundred files, would be read for nothing.
        Ok(Self(client.tls_certs_only([]).build()?))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _},
        net::{Ipv4Addr, TcpListener},
        thread,
    };

    #[tokio::test]
    async fn whoever_has_the_port_cannot_send_the_agent_elsewhere() {
        let elsewhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        elsewhere.set_nonblocking(true).unwrap();
        let target = elsewhere.local_addr().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let squatter = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            write!(stream, "HTTP/1.1 302 Found\r\nLocation: http://{target}/\r\nContent-Length: 0\r\n\r\n").unwrap();
        });
        let error = Scraper::new().unwrap().check(Ipv4Addr::LOCALHOST.into(), port).await.unwrap_err();
        assert!(matches!(error, ScrapeError::Status(reqwest::StatusCode::FOUND)), "{error}");
        squatter.join().unwrap();
        assert_eq!(elsewhere.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
}
