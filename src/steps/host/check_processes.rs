use crate::{
    rpc::v1,
    steps::{AgentKind, FieldViolation, Fields, Policy, StepInfo, fields::strings, info, values::Keyword},
};
use serde::{Deserialize, Serialize};

/// No process of the host has one of the keywords in its command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckProcesses {
    pub keywords: Vec<Keyword>,
}

const INFO: StepInfo = info(
    "Check if process not exist",
    "com.alipay.ocp.service.task.business.host.CheckProcessNotExistTask",
    300,
    Policy::Pure,
    false,
);

impl AgentKind for CheckProcesses {
    type Message = v1::CheckProcesses;

    fn info(&self) -> &'static StepInfo {
        &INFO
    }

    fn lock(&self) -> Option<String> {
        None
    }

    fn to_message(&self) -> v1::CheckProcesses {
        v1::CheckProcesses { keywords: strings(&self.keywords) }
    }

    fn from_message(message: v1::CheckProcesses, fields: Fields) -> Result<Self, FieldViolation> {
        Ok(Self { keywords: fields.some("keywords", message.keywords)? })
    }
}
