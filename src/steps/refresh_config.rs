use super::{
    Policy, StepInfo, info,
    values::{ClusterName, Port},
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceKind {
    Obproxy,
    Observer,
}

impl InstanceKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Obproxy => "obproxy",
            Self::Observer => "observer",
        }
    }
}

/// A database process that an agent looks after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub kind: InstanceKind,
    pub sql_port: Port,
    pub exporter_port: Port,
    pub cluster_name: ClusterName,
    /// Ids at the coordinator.
    pub cluster_id: i64,
    pub server_id: i64,
}

/// The agent's configuration names the instance; undo takes it out if this operation put it in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshConfig {
    pub instance: Instance,
}

impl RefreshConfig {
    pub const INFO: StepInfo = info(
        "Refresh ocp agent config",
        "com.alipay.ocp.service.task.business.host.RefreshAgentConfigTask",
        3600,
        Policy::Rerun,
        true,
    );
}
