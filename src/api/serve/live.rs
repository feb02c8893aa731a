//! A coordinator that runs: what is asked of it to know that it makes progress, and what changes without a restart.

use super::{Coordinator, own_certificates::OwnCertificates};
use crate::{coordinator::config::Config, service_manager::Heartbeats, tls::TlsError};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Every other setting is read at the start only; `log_filter` is the caller's to replace.
pub const LIVE: [&str; 5] =
    ["grace_seconds", "log_filter", "log_limit_bytes", "log_retention_days", "task_retention_days"];

impl Coordinator {
    /// Shows fresh certificates and takes what can be taken of `config`, or nothing.
    pub fn reload(&mut self, config: &Config) -> Result<(), TlsError> {
        self.own.renew()?;
        self.grace = config.grace;
        self.retention.send_replace(config.retention);
        Ok(())
    }

    /// The parts that have to go on for ever.
    pub fn heartbeats(&self) -> Heartbeats {
        let mut heartbeats = Heartbeats::default();
        let engine = self.engine().clone();
        heartbeats.add("the engine and its journal", move || {
            let engine = engine.clone();
            async move { engine.beat().await }
        });
        let (own, address) = (Arc::clone(&self.own), reachable(self.address));
        heartbeats.add("the HTTPS server", move || {
            let own = Arc::clone(&own);
            async move {
                if let Err(error) = knock(&own, address).await {
                    tracing::warn!(%address, %error, "the HTTPS server refuses connections of its own program");
                    std::future::pending::<()>().await;
                }
            }
        });
        heartbeats
    }
}

/// As a client does, but says nothing after the handshake.
async fn knock(own: &OwnCertificates, address: SocketAddr) -> io::Result<()> {
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(own.calls().current()).connect(OwnCertificates::server_name()?, stream).await.map(drop)
}

fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        ip if !ip.is_unspecified() => ip,
        ip if ip.is_ipv4() => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listener.port())
}
