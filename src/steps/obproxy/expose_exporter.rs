use crate::{
    rpc::v1,
    steps::{AgentKind, FieldViolation, Fields, Instance, Policy, StepInfo, agent::CONFIG_LOCK, info},
};
use serde::{Deserialize, Serialize};

/// The exporter port answers exposition text and the agent lists it; undo takes it off the list if this operation put it there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExposeExporter {
    pub instance: Instance,
}

const INFO: StepInfo = info(
    "Register obproxy exporter",
    "com.alipay.ocp.service.task.business.obproxy.RegisterObproxyExporterTask",
    30,
    Policy::Rerun,
    true,
);

impl AgentKind for ExposeExporter {
    type Message = v1::ExposeExporter;

    fn info(&self) -> &'static StepInfo {
        &INFO
    }

    fn lock(&self) -> Option<String> {
        Some(CONFIG_LOCK.into())
    }

    fn to_message(&self) -> v1::ExposeExporter {
        v1::ExposeExporter { instance: Some(self.instance.to_message()) }
    }

    fn from_message(message: v1::ExposeExporter, fields: Fields) -> Result<Self, FieldViolation> {
        Ok(Self { instance: Instance::from_message(message.instance, fields)? })
    }
}
