use super::start::StartObproxy;
use crate::{
    rpc::v1,
    steps::{
        AgentKind, FieldViolation, Fields, Instance, Policy, StepInfo, info,
        values::{PackageRef, Parameter, Sha256},
    },
};
use serde::{Deserialize, Serialize};

/// A proxy that the agent has started is gone: its processes, its directory, and its package, if the agent has installed
/// that and nothing else needs it. Undo brings it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UninstallObproxy {
    /// How it is started again.
    pub start: StartObproxy,
    pub instance: Instance,
    /// Items that can change at run time, which it gets again.
    pub parameters: Vec<Parameter>,
    /// Digest of the package's file, for the undo. None if the coordinator has the file no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    pub keep_logs: bool,
}

const INFO: StepInfo = info(
    "Stop and uninstall obproxy",
    "com.alipay.ocp.service.task.business.obproxy.UninstallObproxyTask",
    1800,
    Policy::Probe,
    true,
);

impl AgentKind for UninstallObproxy {
    type Message = v1::UninstallObproxy;

    fn info(&self) -> &'static StepInfo {
        &INFO
    }

    fn lock(&self) -> Option<String> {
        self.start.lock()
    }

    fn packages_of_undo(&self) -> Vec<(&PackageRef, &Sha256)> {
        self.sha256.iter().map(|sha256| (&self.start.package, sha256)).collect()
    }

    fn secrets_of_undo(&self) -> &'static [&'static str] {
        self.start.secrets()
    }

    fn to_message(&self) -> v1::UninstallObproxy {
        v1::UninstallObproxy {
            start: Some(self.start.to_message()),
            instance: Some(self.instance.to_message()),
            parameters: self.parameters.iter().map(v1::Parameter::from).collect(),
            sha256: self.sha256.as_ref().map(ToString::to_string).unwrap_or_default(),
            keep_logs: self.keep_logs,
        }
    }

    fn from_message(message: v1::UninstallObproxy, fields: Fields) -> Result<Self, FieldViolation> {
        let start = StartObproxy::from_message(fields.given("start", message.start)?, fields)?;
        let instance = Instance::from_message(message.instance, fields)?;
        if instance.sql_port != start.sql_port {
            let problem = format!("has SQL port {}, and what is started has {}", instance.sql_port, start.sql_port);
            return Err(fields.wrong("instance", problem));
        }
        Ok(Self {
            start,
            instance,
            parameters: fields.parameters("parameters", message.parameters)?,
            sha256: Some(message.sha256)
                .filter(|text| !text.is_empty())
                .map(|text| fields.one("sha256", text))
                .transpose()?,
            keep_logs: message.keep_logs,
        })
    }
}
