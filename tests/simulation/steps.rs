//! What the steps of a simulation are about.

use super::world::Thing;
use crate::steps::{AgentStep, Policy};

/// What the step makes on `host`; a check makes nothing.
pub(super) fn thing(host: &str, step: &AgentStep) -> Option<Thing> {
    if step.info().policy == Policy::Pure {
        return None;
    }
    let detail = match step {
        AgentStep::InstallPackage(install) => install.package.to_string(),
        AgentStep::StartObproxy(start) => start.sql_port.to_string(),
        AgentStep::SyncObproxyParameters(sync) => sync.sql_port.to_string(),
        AgentStep::SetObproxyPasswords(set) => set.sql_port.to_string(),
        AgentStep::RefreshConfig(refresh) => refresh.instance.sql_port.to_string(),
        AgentStep::ExposeExporter(expose) => expose.instance.sql_port.to_string(),
        AgentStep::CheckCommands(_) | AgentStep::CheckProcesses(_) | AgentStep::CheckInstance(_) => String::new(),
    };
    Some(Thing { host: host.into(), what: format!("{} {detail}", step.kind()) })
}
