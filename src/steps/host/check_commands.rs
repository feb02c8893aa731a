use crate::{
    rpc::v1,
    steps::{AgentKind, FieldViolation, Fields, Policy, StepInfo, fields::strings, info, values::CommandName},
};
use serde::{Deserialize, Serialize};

/// Every command exists on the agent's fixed search path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckCommands {
    pub commands: Vec<CommandName>,
}

const INFO: StepInfo = info(
    "Check if command exists",
    "com.alipay.ocp.service.task.business.host.CheckCommandTask",
    300,
    Policy::Pure,
    false,
);

impl AgentKind for CheckCommands {
    type Message = v1::CheckCommands;

    fn info(&self) -> &'static StepInfo {
        &INFO
    }

    fn lock(&self) -> Option<String> {
        None
    }

    fn to_message(&self) -> v1::CheckCommands {
        v1::CheckCommands { commands: strings(&self.commands) }
    }

    fn from_message(message: v1::CheckCommands, fields: Fields) -> Result<Self, FieldViolation> {
        Ok(Self { commands: fields.some("commands", message.commands)? })
    }
}
