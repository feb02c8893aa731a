use super::LOCK;
use crate::{
    rpc::v1,
    steps::{AgentKind, FieldViolation, Fields, Policy, StepInfo, info},
};
use serde::{Deserialize, Serialize};

/// The service manager of the host stops the agent, seconds after the agent has told that it will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopAgent {}

const INFO: StepInfo = info(
    "Stop all OCP agent processes",
    "com.alipay.ocp.service.task.business.obagent.StopAllOcpAgentProcessesTask",
    600,
    Policy::Probe,
    false,
);

impl AgentKind for StopAgent {
    type Message = v1::StopAgent;

    fn info(&self) -> &'static StepInfo {
        &INFO
    }

    fn lock(&self) -> Option<String> {
        Some(LOCK.into())
    }

    fn to_message(&self) -> v1::StopAgent {
        v1::StopAgent {}
    }

    fn from_message(v1::StopAgent {}: v1::StopAgent, _: Fields) -> Result<Self, FieldViolation> {
        Ok(Self {})
    }
}
