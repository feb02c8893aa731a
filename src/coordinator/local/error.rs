//! Why a step of the coordinator ends early.

use super::skew::Skew;
use crate::{
    coordinator::{agents::CallError, connection::Distrust, engine::journal::Closed, store::StoreError},
    steps::values::PackageRef,
};
use std::{io, net::IpAddr};

/// A step that did not reach its aim.
pub(super) enum Stopped {
    /// The engine ends, or another coordinator has the task: nothing can be said of the step.
    Closed,
    Failed(LocalError),
}

impl From<Closed> for Stopped {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

impl<E: Into<LocalError>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Why a local step failed, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub(super) enum LocalError {
    #[error("the coordinator's store does not answer")]
    Store(#[from] StoreError),
    #[error("{what} {id} does not exist any more")]
    Gone { what: &'static str, id: i64 },
    #[error("package {0} is not among the uploaded packages")]
    NoPackage(PackageRef),
    #[error("the coordinator's copy of package {package} cannot be read")]
    PackageFile { package: PackageRef, source: io::Error },
    #[error("the coordinator's copy of package {package} has {found} bytes instead of {expected}")]
    PackageSize { package: PackageRef, found: u64, expected: i64 },
    #[error("package {package} is for another architecture than host {host}, which is {architecture}")]
    Architecture { package: PackageRef, host: IpAddr, architecture: String },
    #[error("there is no agent package for host {host}, which is {architecture}")]
    NoFitPackage { host: IpAddr, architecture: String },
    #[error("the agent of host {host} did not answer in time")]
    Unreachable { host: IpAddr, source: Box<CallError> },
    #[error("the clock of host {host} is {skew}, at most {limit} ms are allowed")]
    Clock { host: IpAddr, skew: Skew, limit: i64 },
    #[error("the agent of host {host} does not report its time")]
    NoClock { host: IpAddr },
    #[error("the agent of host {host} has version {agent:?}, which this coordinator (version {own}) does not support")]
    AgentVersion { host: IpAddr, agent: String, own: &'static str },
    #[error("the agent of host {host} still answers")]
    StillAnswers { host: IpAddr },
    #[error("host {host} is in use: proxy {proxy} is on it")]
    InUse { host: IpAddr, proxy: i64 },
    #[error("the agent of host {host} is not trusted")]
    Distrusted { host: IpAddr, source: Distrust },
    #[error("the agent of host {host} refuses this coordinator")]
    Refused { host: IpAddr, source: Box<CallError> },
}

impl LocalError {
    pub(super) fn advice(&self) -> (&'static str, &'static str) {
        match self {
            Self::Store(_) => ("STORE", "see the coordinator's log, then retry the subtask"),
            Self::Gone { .. } => ("GONE", "it was deleted in the meantime: roll the task back"),
            Self::NoPackage(_) | Self::PackageFile { .. } | Self::PackageSize { .. } => {
                ("PACKAGE_MISSING", "upload the package again, then retry the subtask")
            }
            Self::Architecture { .. } => {
                ("ARCHITECTURE", "roll the task back and add the proxy with a package for this architecture")
            }
            Self::NoFitPackage { .. } => (
                "NO_FIT_PACKAGE",
                "upload the package for this architecture, and upgrade the host by a task that names it as well",
            ),
            Self::Unreachable { .. } => (
                "AGENT_UNREACHABLE",
                "see on the host whether oblet-agent runs, is enrolled with this coordinator and its port is open, then \
                 retry the subtask",
            ),
            Self::Clock { .. } | Self::NoClock { .. } => {
                ("CLOCK_SKEW", "let chrony or ntpd set the clock of the host, then retry the subtask")
            }
            Self::AgentVersion { .. } => (
                "AGENT_VERSION",
                "install an agent of the coordinator's major version on the host, then retry the subtask",
            ),
            Self::StillAnswers { .. } => ("AGENT_STILL_ANSWERS", "roll the task back, and stop the agent once more"),
            Self::InUse { .. } => {
                ("HOST_IN_USE", "keep the host, because a proxy is on it: skip the subtask (oblet subtask skip)")
            }
            Self::Distrusted { .. } => (
                "HOST_NOT_TRUSTED",
                "enrol the host again with a fresh token (oblet host add --token), then retry the subtask",
            ),
            Self::Refused { .. } => ("AGENT_REFUSED", "see the agent's log on the host, then retry the subtask"),
        }
    }
}
