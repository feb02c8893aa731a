use crate::steps::{CoordinatorKind, Policy, StepInfo, info};
use serde::{Deserialize, Serialize};

/// The agent answers again, and what it says of itself is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishAgentUpgrade {
    pub host_id: i64,
}

const INFO: StepInfo = info(
    "Finish upgrade OCP agent",
    "com.alipay.ocp.service.task.business.obagent.FinishUpgradeOcpAgentTask",
    60,
    Policy::Rerun,
    false,
);

impl CoordinatorKind for FinishAgentUpgrade {
    fn info(&self) -> &'static StepInfo {
        &INFO
    }
}
