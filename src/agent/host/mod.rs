//! What a step does on a host.

pub mod metrics;
pub mod shim;

use super::step::{BoxFuture, Carrier, Done, StepContext, StepError, Undoes};
use crate::{rpc::v1::ManagedInstance, steps::AgentStep};
use std::{net::IpAddr, path::PathBuf};

/// Where a host lies and how steps are carried out on it.
#[derive(Debug, Clone)]
pub struct HostSettings {
    pub root_dir: PathBuf,
    pub state_dir: PathBuf,
    pub address: Option<IpAddr>,
    pub run_user: String,
    pub run_path: PathBuf,
    pub rpm_scriptlets: bool,
    pub rpm_dependencies: bool,
    pub builtin_sys_password_file: Option<PathBuf>,
    pub search_path: Vec<PathBuf>,
}

impl HostSettings {
    pub fn default_search_path() -> Vec<PathBuf> {
        ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from).into()
    }
}

/// Starts processes that outlive the agent.
pub trait Supervisor: Send + Sync {}

#[derive(Default)]
pub struct DirectSupervisor;

impl DirectSupervisor {
    pub fn new() -> Self {
        Self
    }
}

impl Supervisor for DirectSupervisor {}

/// A host that can do nothing.
pub struct Host;

impl Host {
    pub fn open(_settings: HostSettings, _supervisor: Box<dyn Supervisor>) -> std::io::Result<Self> {
        Ok(Self)
    }

    pub fn instances(&self) -> Vec<ManagedInstance> {
        Vec::new()
    }

    pub fn config_generation(&self) -> u64 {
        0
    }
}

impl Carrier for Host {
    fn execute<'a>(&'a self, step: &'a AgentStep, _: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async { Err(StepError::new("UNSUPPORTED", format!("{} is not supported", step.kind()), "upgrade")) })
    }

    fn undo<'a>(
        &'a self,
        step: &'a AgentStep,
        context: &'a StepContext,
        _: &'a [Undoes],
    ) -> BoxFuture<'a, Result<Done, StepError>> {
        self.execute(step, context)
    }
}
