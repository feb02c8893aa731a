use crate::steps::{AgentOperation, CoordinatorKind, Policy, StepInfo, info};
use serde::{Deserialize, Serialize};

/// The agent answers again, or does not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishAgentOperation {
    pub host_id: i64,
    pub operation: AgentOperation,
}

const INFO: StepInfo = info(
    "Finish OCP agent operation",
    "com.alipay.ocp.service.task.business.obagent.FinishOcpAgentOperationTask",
    60,
    Policy::Rerun,
    false,
);

impl CoordinatorKind for FinishAgentOperation {
    fn info(&self) -> &'static StepInfo {
        &INFO
    }
}
