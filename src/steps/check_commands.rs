use super::{Policy, StepInfo, info, values::CommandName};
use serde::{Deserialize, Serialize};

/// Every command exists on the agent's fixed search path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckCommands {
    pub commands: Vec<CommandName>,
}

impl CheckCommands {
    pub const INFO: StepInfo = info(
        "Check if command exists",
        "com.alipay.ocp.service.task.business.host.CheckCommandTask",
        300,
        Policy::Pure,
        false,
    );
}
