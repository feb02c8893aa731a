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

/// A step that needs no host. Every one of them may run twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CoordinatorStep {
    PrepareObproxyInstall(PrepareObproxyInstall),
    /// The proxy is shown as running; undo takes that back.
    UpdateObproxyStatus(ObproxyRef),
    Finish,
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
        match self {
            Self::PrepareObproxyInstall(_) => &PREPARE,
            Self::UpdateObproxyStatus(_) => &UPDATE,
            Self::Finish => &FINISH,
        }
    }
}
