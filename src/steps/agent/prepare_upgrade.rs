use crate::steps::{CoordinatorKind, Policy, StepInfo, info, values::PackageRef};
use serde::{Deserialize, Serialize};

/// The agent answers, the packages are there, and one of them is for its machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareAgentUpgrade {
    pub host_id: i64,
    pub packages: Vec<PackageRef>,
}

const INFO: StepInfo = info(
    "Prepare upgrade OCP agent",
    "com.alipay.ocp.service.task.business.obagent.PrepareUpgradeOcpAgentTask",
    60,
    Policy::Pure,
    false,
);

impl CoordinatorKind for PrepareAgentUpgrade {
    fn info(&self) -> &'static StepInfo {
        &INFO
    }
}
