use super::lock;
use crate::{
    rpc::v1,
    steps::{
        AgentKind, FieldViolation, Fields, OBPROXY_SYS_PASSWORD, Policy, StepInfo, info,
        values::{Parameter, Port},
    },
};
use serde::{Deserialize, Serialize};

/// Items that can change at run time have these values. There is no undo: the instance they belong to goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncObproxyParameters {
    pub sql_port: Port,
    pub parameters: Vec<Parameter>,
}

const INFO: StepInfo = info(
    "Sync obproxy parameter",
    "com.alipay.ocp.service.task.business.obproxy.SyncObproxyParameterTask",
    30,
    Policy::Rerun,
    false,
);

impl AgentKind for SyncObproxyParameters {
    type Message = v1::SyncObproxyParameters;

    fn info(&self) -> &'static StepInfo {
        &INFO
    }

    fn lock(&self) -> Option<String> {
        Some(lock(self.sql_port))
    }

    fn secrets(&self) -> &'static [&'static str] {
        &[OBPROXY_SYS_PASSWORD]
    }

    fn to_message(&self) -> v1::SyncObproxyParameters {
        v1::SyncObproxyParameters {
            sql_port: self.sql_port.into(),
            parameters: self.parameters.iter().map(v1::Parameter::from).collect(),
        }
    }

    fn from_message(message: v1::SyncObproxyParameters, fields: Fields) -> Result<Self, FieldViolation> {
        Ok(Self {
            sql_port: fields.port("sql_port", message.sql_port)?,
            parameters: fields.parameters("parameters", message.parameters)?,
        })
    }
}
