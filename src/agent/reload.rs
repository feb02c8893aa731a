//! What SIGHUP changes: settings and certificates that can be exchanged while the agent runs.

use super::{
    Agent, Limits,
    config::{Config, Flags},
};
use crate::{
    config::{ConfigError, Given},
    telemetry::{LogError, LogFilter},
    tls::{AgentTls, TlsError},
};
use tokio::sync::watch;

/// Every other setting is read at the start only.
const LIVE: [&str; 7] =
    ["grace_seconds", "log_filter", "log_limit_bytes", "retention_days", "tls_ca", "tls_certificate", "tls_key"];

/// Why everything stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the certificates cannot be used")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The changeable part of a running agent.
pub struct Reload {
    flags: Flags,
    started_with: Given,
    filter: LogFilter,
    tls: AgentTls,
    limits: watch::Sender<Limits>,
}

impl Reload {
    /// `flags` are those that `started_with` was read with.
    pub fn new(agent: &Agent, flags: Flags, started_with: Given, filter: LogFilter) -> Self {
        Self { flags, started_with, filter, tls: agent.tls().clone(), limits: agent.limits().clone() }
    }

    /// Reads file and certificates again and takes all that can be taken, or nothing. Answers the names of the
    /// settings that differ from those of the start and wait for the next one.
    pub fn reload(&self) -> Result<Vec<String>, ReloadError> {
        let config = Config::load(&self.flags)?;
        self.tls.replace(&config.service.identity)?;
        self.filter.replace(&config.log_filter)?;
        self.limits.send_replace(config.service.limits());
        Ok(config.given.needs_restart(&self.started_with, &LIVE))
    }
}
