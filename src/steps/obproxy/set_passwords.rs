use super::lock;
use crate::{
    rpc::v1,
    steps::{
        AgentKind, FieldViolation, Fields, OBPROXY_SYS_PASSWORD, OBSERVER_SYS_PASSWORD, Policy, StepInfo, info,
        values::Port,
    },
};
use serde::{Deserialize, Serialize};

/// root@proxysys and proxyro@sys have the passwords of the cluster. There is no undo: the instance they belong to goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetObproxyPasswords {
    pub sql_port: Port,
}

const INFO: StepInfo = info(
    "Set obproxy user and password for connect",
    "com.alipay.ocp.service.task.business.obproxy.SetObproxyUserPasswordForObTask",
    30,
    Policy::Rerun,
    false,
);

impl AgentKind for SetObproxyPasswords {
    type Message = v1::SetObproxyPasswords;

    fn info(&self) -> &'static StepInfo {
        &INFO
    }

    fn lock(&self) -> Option<String> {
        Some(lock(self.sql_port))
    }

    fn secrets(&self) -> &'static [&'static str] {
        &[OBPROXY_SYS_PASSWORD, OBSERVER_SYS_PASSWORD]
    }

    fn to_message(&self) -> v1::SetObproxyPasswords {
        v1::SetObproxyPasswords { sql_port: self.sql_port.into() }
    }

    fn from_message(message: v1::SetObproxyPasswords, fields: Fields) -> Result<Self, FieldViolation> {
        Ok(Self { sql_port: fields.port("sql_port", message.sql_port)? })
    }
}
