//! The host that steps act on.

use super::{
    config::HostSettings,
    describe::HostView,
    step::{BoxFuture, Carrier, Done, StepContext, StepError, Undoes},
};
use crate::{rpc::v1, steps::AgentStep};

pub mod shim {
    //! The small program between the agent and a database process.

    pub fn main() -> std::process::ExitCode {
        std::process::ExitCode::FAILURE
    }
}

/// The real host.
pub struct Host {
    _settings: HostSettings,
}

impl Host {
    pub fn open(settings: HostSettings) -> std::io::Result<Self> {
        Ok(Self { _settings: settings })
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

impl HostView for Host {
    fn instances(&self) -> Vec<v1::ManagedInstance> {
        Vec::new()
    }

    fn config_generation(&self) -> u64 {
        0
    }
}
