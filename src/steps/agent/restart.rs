use super::LOCK;
use crate::{
    rpc::v1,
    steps::{AgentKind, FieldViolation, Fields, Policy, StepInfo, info},
};
use serde::{Deserialize, Serialize};

/// The service manager of the host starts the agent anew. Done when another process of it has taken the step up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartAgent {}

const INFO: StepInfo = info(
    "Start all OCP agent processes",
    "com.alipay.ocp.service.task.business.obagent.StartAllOcpAgentProcessesTask",
    600,
    Policy::Probe,
    false,
);

impl AgentKind for RestartAgent {
    type Message = v1::RestartAgent;

    fn info(&self) -> &'static StepInfo {
        &INFO
    }

    fn lock(&self) -> Option<String> {
        Some(LOCK.into())
    }

    fn to_message(&self) -> v1::RestartAgent {
        v1::RestartAgent {}
    }

    fn from_message(v1::RestartAgent {}: v1::RestartAgent, _: Fields) -> Result<Self, FieldViolation> {
        Ok(Self {})
    }
}
