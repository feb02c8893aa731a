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
        match self {
            Self::PrepareObproxyInstall(_) => &PREPARE,
            Self::UpdateObproxyStatus(_) => &UPDATE,
            Self::Finish => &FINISH,
            Self::PrepareHost(_) => &PREPARE_HOST,
            Self::UpdateHostStatus(_) => &UPDATE_HOST,
        }
    }

    /// What its undo takes back was written by the request and not by the step, so a retry still needs it.
    pub fn stands_for_request(&self) -> bool {
        match self {
            Self::PrepareObproxyInstall(_) | Self::PrepareHost(_) => true,
            Self::UpdateObproxyStatus(_) | Self::Finish | Self::UpdateHostStatus(_) => false,
        }
    }
}
