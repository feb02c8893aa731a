use super::{Policy, StepInfo, info};
use serde::{Deserialize, Serialize};

/// The service manager of the host starts the agent anew. Done when another process of it has taken the step up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartAgent {}

impl RestartAgent {
    pub const INFO: StepInfo = info(
        "Start all OCP agent processes",
        "com.alipay.ocp.service.task.business.obagent.StartAllOcpAgentProcessesTask",
        600,
        Policy::Probe,
        false,
    );
}

/// The service manager of the host stops the agent, seconds after the agent has told that it will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopAgent {}

impl StopAgent {
    pub const INFO: StepInfo = info(
        "Stop all OCP agent processes",
        "com.alipay.ocp.service.task.business.obagent.StopAllOcpAgentProcessesTask",
        600,
        Policy::Probe,
        false,
    );
}
