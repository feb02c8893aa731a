//! The kinds of work a subtask can be: typed arguments, and what the engine and the agent must know of each.

mod agent_service;
mod check_commands;
mod check_host;
mod check_instance;
mod check_processes;
mod coordinator;
mod expose_exporter;
mod install_package;
mod obproxy_version;
mod refresh_config;
mod set_obproxy_passwords;
mod start_obproxy;
mod sync_obproxy_parameters;
mod upgrade_agent;
pub mod values;
mod wire;

pub use agent_service::{RestartAgent, StopAgent};
pub use check_commands::CheckCommands;
pub use check_host::CheckHost;
pub use check_instance::CheckInstance;
pub use check_processes::CheckProcesses;
pub use coordinator::{
    AgentOperation, AgentRef, CoordinatorStep, HostRef, ObproxyRef, PrepareAgentUpgrade, PrepareHost,
    PrepareObproxyInstall,
};
pub use expose_exporter::ExposeExporter;
pub use install_package::InstallPackage;
pub use obproxy_version::{DEFAULT_RPC_PORT, ObproxyVersion};
pub use refresh_config::{Instance, InstanceKind, RefreshConfig};
pub use set_obproxy_passwords::SetObproxyPasswords;
pub use start_obproxy::{StartObproxy, WorkMode};
pub use sync_obproxy_parameters::SyncObproxyParameters;
pub use upgrade_agent::{AgentPackage, UpgradeAgent};
pub use wire::{FieldViolation, SCHEMA_VERSION, fingerprint};

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How a step behaves when it meets its own past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Touches nothing: no journal, no sync, simply asked again.
    Pure,
    /// Compares and then writes; running it again is harmless.
    Rerun,
    /// Looks at the world first (rpm database, process, port) and does what is missing.
    Probe,
    /// Never repeated without an operator.
    Once,
}

/// What OCP calls a step, and how the engine has to treat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepInfo {
    /// OCP's name and description of the subtask.
    pub name: &'static str,
    pub class_name: &'static str,
    /// None: no limit (OCP prints 0).
    pub timeout: Option<Duration>,
    pub policy: Policy,
    /// There may be something to take back.
    pub undoable: bool,
}

const fn info(name: &'static str, class_name: &'static str, seconds: u64, policy: Policy, undoable: bool) -> StepInfo {
    let timeout = if seconds == 0 { None } else { Some(Duration::from_secs(seconds)) };
    StepInfo { name, class_name, timeout, policy, undoable }
}

/// Name of the secret that holds the password of root@proxysys.
pub const OBPROXY_SYS_PASSWORD: &str = "obproxy_sys_password";
/// Name of the secret that holds the password of proxyro@sys on the observers.
pub const OBSERVER_SYS_PASSWORD: &str = "observer_sys_password";

/// A step that an agent carries out on its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AgentStep {
    CheckCommands(CheckCommands),
    CheckProcesses(CheckProcesses),
    CheckInstance(CheckInstance),
    InstallPackage(InstallPackage),
    StartObproxy(StartObproxy),
    SyncObproxyParameters(SyncObproxyParameters),
    SetObproxyPasswords(SetObproxyPasswords),
    RefreshConfig(RefreshConfig),
    ExposeExporter(ExposeExporter),
    CheckHost(CheckHost),
    RestartAgent(RestartAgent),
    StopAgent(StopAgent),
    UpgradeAgent(UpgradeAgent),
}

impl AgentStep {
    pub fn info(&self) -> &'static StepInfo {
        match self {
            Self::CheckCommands(_) => &CheckCommands::INFO,
            Self::CheckProcesses(_) => &CheckProcesses::INFO,
            Self::CheckInstance(_) => &CheckInstance::INFO,
            Self::InstallPackage(_) => &InstallPackage::INFO,
            Self::StartObproxy(_) => &StartObproxy::INFO,
            Self::SyncObproxyParameters(_) => &SyncObproxyParameters::INFO,
            Self::SetObproxyPasswords(_) => &SetObproxyPasswords::INFO,
            Self::RefreshConfig(_) => &RefreshConfig::INFO,
            Self::ExposeExporter(_) => &ExposeExporter::INFO,
            Self::CheckHost(_) => &CheckHost::INFO,
            Self::RestartAgent(_) => &RestartAgent::INFO,
            Self::StopAgent(_) => &StopAgent::INFO,
            Self::UpgradeAgent(_) => &UpgradeAgent::INFO,
        }
    }

    /// Name of the kind, as in the contract's oneof.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CheckCommands(_) => "check_commands",
            Self::CheckProcesses(_) => "check_processes",
            Self::CheckInstance(_) => "check_instance",
            Self::InstallPackage(_) => "install_package",
            Self::StartObproxy(_) => "start_obproxy",
            Self::SyncObproxyParameters(_) => "sync_obproxy_parameters",
            Self::SetObproxyPasswords(_) => "set_obproxy_passwords",
            Self::RefreshConfig(_) => "refresh_config",
            Self::ExposeExporter(_) => "expose_exporter",
            Self::CheckHost(_) => "check_host",
            Self::RestartAgent(_) => "restart_agent",
            Self::StopAgent(_) => "stop_agent",
            Self::UpgradeAgent(_) => "upgrade_agent",
        }
    }

    /// What no other operation on the host may touch meanwhile.
    pub fn lock(&self) -> Option<String> {
        match self {
            Self::CheckCommands(_) | Self::CheckProcesses(_) | Self::CheckInstance(_) | Self::CheckHost(_) => None,
            Self::InstallPackage(_) => Some("rpmdb".into()),
            Self::StartObproxy(step) => Some(obproxy_lock(step.sql_port)),
            Self::SyncObproxyParameters(step) => Some(obproxy_lock(step.sql_port)),
            Self::SetObproxyPasswords(step) => Some(obproxy_lock(step.sql_port)),
            Self::RefreshConfig(_) | Self::ExposeExporter(_) => Some("config".into()),
            // The package managers guard their databases by themselves.
            Self::RestartAgent(_) | Self::StopAgent(_) | Self::UpgradeAgent(_) => Some("agent".into()),
        }
    }

    /// Packages that the agent needs, by name and digest.
    pub fn packages(&self) -> Vec<(&values::PackageRef, &values::Sha256)> {
        match self {
            Self::InstallPackage(step) => vec![(&step.package, &step.sha256)],
            Self::UpgradeAgent(step) => step.packages.iter().map(|item| (&item.package, &item.sha256)).collect(),
            Self::CheckCommands(_)
            | Self::CheckProcesses(_)
            | Self::CheckInstance(_)
            | Self::StartObproxy(_)
            | Self::SyncObproxyParameters(_)
            | Self::SetObproxyPasswords(_)
            | Self::RefreshConfig(_)
            | Self::ExposeExporter(_)
            | Self::CheckHost(_)
            | Self::RestartAgent(_)
            | Self::StopAgent(_) => Vec::new(),
        }
    }

    /// Secrets that have to come with the step.
    pub fn secrets(&self) -> &'static [&'static str] {
        match self {
            Self::StartObproxy(_) | Self::SetObproxyPasswords(_) => &[OBPROXY_SYS_PASSWORD, OBSERVER_SYS_PASSWORD],
            Self::SyncObproxyParameters(_) => &[OBPROXY_SYS_PASSWORD],
            Self::CheckCommands(_)
            | Self::CheckProcesses(_)
            | Self::CheckInstance(_)
            | Self::InstallPackage(_)
            | Self::RefreshConfig(_)
            | Self::ExposeExporter(_)
            | Self::CheckHost(_)
            | Self::RestartAgent(_)
            | Self::StopAgent(_)
            | Self::UpgradeAgent(_) => &[],
        }
    }
}

fn obproxy_lock(port: values::Port) -> String {
    format!("instance/obproxy/{port}")
}

/// What one node of a task does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "place", content = "step", rename_all = "snake_case")]
pub enum Step {
    Coordinator(CoordinatorStep),
    Agent(AgentStep),
}

impl Step {
    pub fn info(&self) -> &'static StepInfo {
        match self {
            Self::Coordinator(step) => step.info(),
            Self::Agent(step) => step.info(),
        }
    }
}
