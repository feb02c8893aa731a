//! What carries out each kind of step on the host.

use super::{Host, blocking, settings::HostSettings};
use crate::{
    agent::step::{Done, StepContext, StepError, Undoes},
    steps::AgentStep,
};
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// How the host carries out a kind of step.
pub(super) trait Adapter: Sync {
    fn execute<'a>(&'a self, host: &'a Host, context: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>>;

    /// Takes back what `undoes` made. Kinds that leave nothing to take back are not asked.
    fn undo<'a>(
        &'a self,
        _host: &'a Host,
        _context: &'a StepContext,
        _undoes: &'a [Undoes],
    ) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async { Ok(Done::already()) })
    }
}

/// Sends each kind to its adapter.
pub(super) fn adapter(step: &AgentStep) -> &dyn Adapter {
    match step {
        AgentStep::CheckCommands(step) => step,
        AgentStep::CheckProcesses(step) => step,
        AgentStep::CheckInstance(step) => step,
        AgentStep::CheckHost(step) => step,
        AgentStep::RestartAgent(step) => step,
        AgentStep::StopAgent(step) => step,
        AgentStep::UpgradeAgent(step) => step,
        AgentStep::InstallPackage(step) => step,
        AgentStep::StartObproxy(step) => step,
        AgentStep::SyncObproxyParameters(step) => step,
        AgentStep::SetObproxyPasswords(step) => step,
        AgentStep::RefreshConfig(step) => step,
        AgentStep::ExposeExporter(step) => step,
        AgentStep::UninstallObproxy(step) => step,
        AgentStep::RetireExporter(step) => step,
    }
}

/// A check that reads a lot of files, beside the event loop.
pub(super) fn looked_at<'a, K: Clone + Send + 'static>(
    check: fn(&HostSettings, &K, &StepContext) -> Result<Done, StepError>,
    step: &K,
    host: &Host,
    context: &StepContext,
) -> BoxFuture<'a, Result<Done, StepError>> {
    let (settings, step, context) = (Arc::clone(&host.settings), step.clone(), context.clone());
    Box::pin(blocking(move || check(&settings, &step, &context)))
}
