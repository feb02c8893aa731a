use crate::{
    rpc::v1,
    steps::{AgentKind, FieldViolation, Fields, Policy, StepInfo, info, values::Port},
};
use serde::{Deserialize, Serialize};

/// The host can take the instance: free ports, a run user, the right architecture, room on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckInstance {
    /// The SQL port first. On the others the program listens at every address, whatever it is told.
    pub ports: Vec<Port>,
    /// As in the package's header.
    pub architecture: String,
    /// Installed size of the package.
    pub disk_bytes: u64,
}

const INFO: StepInfo = info(
    "Prepare create obproxy",
    "com.alipay.ocp.service.task.business.obproxy.PrepareCreateObproxyTask",
    1800,
    Policy::Pure,
    false,
);

impl AgentKind for CheckInstance {
    type Message = v1::CheckInstance;

    fn info(&self) -> &'static StepInfo {
        &INFO
    }

    fn lock(&self) -> Option<String> {
        None
    }

    fn to_message(&self) -> v1::CheckInstance {
        v1::CheckInstance {
            ports: self.ports.iter().map(|port| (*port).into()).collect(),
            architecture: self.architecture.clone(),
            disk_bytes: self.disk_bytes,
        }
    }

    fn from_message(message: v1::CheckInstance, fields: Fields) -> Result<Self, FieldViolation> {
        let ports = message.ports.iter().map(|number| fields.port("ports", *number)).collect::<Result<_, _>>()?;
        Ok(Self { ports, architecture: message.architecture, disk_bytes: message.disk_bytes })
    }
}
