use crate::{
    rpc::v1,
    steps::{AgentKind, FieldViolation, Fields, Instance, Policy, StepInfo, agent::CONFIG_LOCK, info},
};
use serde::{Deserialize, Serialize};

/// The agent does not list the exporter port of the instance; undo lists it again if this operation took it off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetireExporter {
    pub instance: Instance,
}

const INFO: StepInfo = info(
    "Offline obproxy exporter",
    "com.alipay.ocp.service.task.business.obproxy.OfflineObproxyExporterTask",
    30,
    Policy::Rerun,
    true,
);

impl AgentKind for RetireExporter {
    type Message = v1::RetireExporter;

    fn info(&self) -> &'static StepInfo {
        &INFO
    }

    fn lock(&self) -> Option<String> {
        Some(CONFIG_LOCK.into())
    }

    fn to_message(&self) -> v1::RetireExporter {
        v1::RetireExporter { instance: Some(self.instance.to_message()) }
    }

    fn from_message(message: v1::RetireExporter, fields: Fields) -> Result<Self, FieldViolation> {
        Ok(Self { instance: Instance::from_message(message.instance, fields)? })
    }
}
