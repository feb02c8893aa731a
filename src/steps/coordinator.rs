use super::{Policy, StepInfo, info, values::PackageRef};
use serde::{Deserialize, Serialize};

/// A proxy as the coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObproxyRef {
    pub cluster_id: i64,
    pub server_id: i64,
}

/// Everything that the coordinator can check and set up before a host is touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareObproxyInstall {
    pub cluster_id: i64,
    /// Absent when a cluster is created without proxies.
    pub proxy: Option<ObproxyRef>,
    pub package: Option<PackageRef>,
}

/// A host as the coordinator knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRef {
    pub host_id: i64,
}

/// What the agent says of its host is kept, if the coordinator can work with it: its clock and its version fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareHost {
    pub host_id: i64,
    /// The port of the agent's metrics is what the agent says.
    pub asks_metrics_port: bool,
}

/// What is done with the agent of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentOperation {
    Restart,
    Stop,
}

/// The agent of a host, and what is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRef {
    pub host_id: i64,
    pub operation: AgentOperation,
}

/// An agent that is about to be upgraded, and what to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareAgentUpgrade {
    pub host_id: i64,
    pub packages: Vec<PackageRef>,
}

/// A step that needs no host. Every one of them may run twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CoordinatorStep {
    PrepareObproxyInstall(PrepareObproxyInstall),
    /// The proxy is shown as running; undo takes that back.
    UpdateObproxyStatus(ObproxyRef),
    Finish,
    /// The host is known since the request; undo forgets it.
    PrepareHost(PrepareHost),
    /// The host can be used; undo takes that back.
    UpdateHostStatus(HostRef),
    /// The agent answers, so it can be asked to restart or to stop.
    PrepareAgentOperation(AgentRef),
    /// The agent answers again, or does not any more.
    FinishAgentOperation(AgentRef),
    /// The agent answers, the packages are there, and one of them is for its machine.
    PrepareAgentUpgrade(PrepareAgentUpgrade),
    /// The agent answers again, and what it says of itself is kept.
    FinishAgentUpgrade(HostRef),
    /// Parallel branches meet here.
    Wait,
}

impl CoordinatorStep {
    pub fn info(&self) -> &'static StepInfo {
        const PREPARE: StepInfo = info(
            "Prepare obproxy install",
            "com.alipay.ocp.service.task.business.obproxy.PrepareObproxyInstallTask",
            300,
            Policy::Rerun,
            true,
        );
        const UPDATE: StepInfo = info(
            "Update obproxy status",
            "com.alipay.ocp.service.task.business.obproxy.UpdateObproxyStatusTask",
            300,
            Policy::Rerun,
            true,
        );
        const FINISH: StepInfo =
            info("Finish node", "com.alipay.ocp.service.task.business.obproxy.FinishTask", 0, Policy::Pure, false);
        // OCP documents names and timeouts of these two; the classes are named after its pattern.
        const PREPARE_HOST: StepInfo = info(
            "Pre check for create host",
            "com.alipay.ocp.service.task.business.host.PreCheckForCreateHostTask",
            1800,
            Policy::Rerun,
            true,
        );
        const UPDATE_HOST: StepInfo = info(
            "Update host status",
            "com.alipay.ocp.service.task.business.host.UpdateHostStatusTask",
            1800,
            Policy::Rerun,
            true,
        );
        const PREPARE_RESTART: StepInfo = info(
            "Prepare restart OCP agent",
            "com.alipay.ocp.service.task.business.obagent.PrepareRestartOcpAgentTask",
            60,
            Policy::Pure,
            false,
        );
        const PREPARE_STOP: StepInfo = info(
            "Prepare stop OCP agent",
            "com.alipay.ocp.service.task.business.obagent.PrepareStopOcpAgentTask",
            60,
            Policy::Pure,
            false,
        );
        const PREPARE_UPGRADE: StepInfo = info(
            "Prepare upgrade OCP agent",
            "com.alipay.ocp.service.task.business.obagent.PrepareUpgradeOcpAgentTask",
            60,
            Policy::Pure,
            false,
        );
        const FINISH_UPGRADE: StepInfo = info(
            "Finish upgrade OCP agent",
            "com.alipay.ocp.service.task.business.obagent.FinishUpgradeOcpAgentTask",
            60,
            Policy::Rerun,
            false,
        );
        const FINISH_AGENT: StepInfo = info(
            "Finish OCP agent operation",
            "com.alipay.ocp.service.task.business.obagent.FinishOcpAgentOperationTask",
            60,
            Policy::Rerun,
            false,
        );
        const WAIT: StepInfo =
            info("Wait node", "com.alipay.ocp.service.task.business.WaitNode", 30, Policy::Pure, false);
        match self {
            Self::PrepareObproxyInstall(_) => &PREPARE,
            Self::UpdateObproxyStatus(_) => &UPDATE,
            Self::Finish => &FINISH,
            Self::PrepareHost(_) => &PREPARE_HOST,
            Self::UpdateHostStatus(_) => &UPDATE_HOST,
            Self::PrepareAgentOperation(AgentRef { operation: AgentOperation::Restart, .. }) => &PREPARE_RESTART,
            Self::PrepareAgentOperation(AgentRef { operation: AgentOperation::Stop, .. }) => &PREPARE_STOP,
            Self::PrepareAgentUpgrade(_) => &PREPARE_UPGRADE,
            Self::FinishAgentUpgrade(_) => &FINISH_UPGRADE,
            Self::FinishAgentOperation(_) => &FINISH_AGENT,
            Self::Wait => &WAIT,
        }
    }

    /// What its undo takes back was written by the request and not by the step, so a retry still needs it.
    pub fn stands_for_request(&self) -> bool {
        match self {
            Self::PrepareObproxyInstall(_) | Self::PrepareHost(_) => true,
            Self::UpdateObproxyStatus(_)
            | Self::Finish
            | Self::UpdateHostStatus(_)
            | Self::PrepareAgentOperation(_)
            | Self::FinishAgentOperation(_)
            | Self::PrepareAgentUpgrade(_)
            | Self::FinishAgentUpgrade(_)
            | Self::Wait => false,
        }
    }
}
