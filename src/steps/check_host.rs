use super::{Policy, StepInfo, info};
use serde::{Deserialize, Serialize};

/// The agent can manage its host: run user, room on the disks, the ports under which the coordinator knows the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckHost {
    /// The agent itself listens on each of them.
    pub agent_ports: Vec<u16>,
    /// Needed wherever the agent or an instance writes.
    pub disk_bytes: u64,
}

impl CheckHost {
    /// OCP has no such node: it looks at the host over SSH, before there is an agent.
    pub const INFO: StepInfo = info("Check host", "oblet.host.CheckHostTask", 300, Policy::Pure, false);
}
