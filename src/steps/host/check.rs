use crate::{
    rpc::v1,
    steps::{AgentKind, FieldViolation, Fields, Policy, StepInfo, info},
};
use serde::{Deserialize, Serialize};

/// The agent can manage its host: run user, room on the disks, the ports under which the coordinator knows the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckHost {
    /// The agent itself listens on each of them.
    pub agent_ports: Vec<u16>,
    /// Needed wherever the agent or an instance writes.
    pub disk_bytes: u64,
}

// OCP has no such node: it looks at the host over SSH, before there is an agent.
const INFO: StepInfo = info("Check host", "oblet.host.CheckHostTask", 300, Policy::Pure, false);

impl AgentKind for CheckHost {
    type Message = v1::CheckHost;

    fn info(&self) -> &'static StepInfo {
        &INFO
    }

    fn lock(&self) -> Option<String> {
        None
    }

    fn to_message(&self) -> v1::CheckHost {
        v1::CheckHost {
            agent_ports: self.agent_ports.iter().map(|port| (*port).into()).collect(),
            disk_bytes: self.disk_bytes,
        }
    }

    fn from_message(message: v1::CheckHost, fields: Fields) -> Result<Self, FieldViolation> {
        // Unlike that of an instance, the port of an agent may be any.
        let port = |number: &u32| {
            let port = u16::try_from(*number).ok().filter(|port| *port > 0);
            port.ok_or_else(|| fields.wrong("agent_ports", "a port lies between 1 and 65535"))
        };
        let agent_ports = message.agent_ports.iter().map(port).collect::<Result<_, _>>()?;
        Ok(Self { agent_ports, disk_bytes: message.disk_bytes })
    }
}
