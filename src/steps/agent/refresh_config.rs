use crate::{
    rpc::v1,
    steps::{AgentKind, FieldViolation, Fields, Instance, Policy, StepInfo, agent::CONFIG_LOCK, info},
};
use serde::{Deserialize, Serialize};

/// The agent's configuration names the instance; undo takes it out if this operation put it in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshConfig {
    pub instance: Instance,
}

const INFO: StepInfo = info(
    "Refresh ocp agent config",
    "com.alipay.ocp.service.task.business.host.RefreshAgentConfigTask",
    3600,
    Policy::Rerun,
    true,
);

impl AgentKind for RefreshConfig {
    type Message = v1::RefreshConfig;

    fn info(&self) -> &'static StepInfo {
        &INFO
    }

    fn lock(&self) -> Option<String> {
        Some(CONFIG_LOCK.into())
    }

    fn to_message(&self) -> v1::RefreshConfig {
        v1::RefreshConfig { instance: Some(self.instance.to_message()) }
    }

    fn from_message(message: v1::RefreshConfig, fields: Fields) -> Result<Self, FieldViolation> {
        Ok(Self { instance: Instance::from_message(message.instance, fields)? })
    }
}
