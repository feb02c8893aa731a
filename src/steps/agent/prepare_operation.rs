use crate::steps::{AgentOperation, CoordinatorKind, Policy, StepInfo, info};
use serde::{Deserialize, Serialize};

/// The agent answers, so it can be asked to restart or to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareAgentOperation {
    pub host_id: i64,
    pub operation: AgentOperation,
}

const RESTART: StepInfo = info(
    "Prepare restart OCP agent",
    "com.alipay.ocp.service.task.business.obagent.PrepareRestartOcpAgentTask",
    60,
    Policy::Pure,
    false,
);
const STOP: StepInfo = info(
    "Prepare stop OCP agent",
    "com.alipay.ocp.service.task.business.obagent.PrepareStopOcpAgentTask",
    60,
    Policy::Pure,
    false,
);

impl CoordinatorKind for PrepareAgentOperation {
    fn info(&self) -> &'static StepInfo {
        match self.operation {
            AgentOperation::Restart => &RESTART,
            AgentOperation::Stop => &STOP,
        }
    }
}
