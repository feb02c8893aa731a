use crate::steps::{CoordinatorKind, Policy, StepInfo, info, values::PackageRef};
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

const INFO: StepInfo = info(
    "Prepare obproxy install",
    "com.alipay.ocp.service.task.business.obproxy.PrepareObproxyInstallTask",
    300,
    Policy::Rerun,
    true,
);

impl CoordinatorKind for PrepareObproxyInstall {
    fn info(&self) -> &'static StepInfo {
        &INFO
    }

    fn stands_for_request(&self) -> bool {
        true
    }
}
