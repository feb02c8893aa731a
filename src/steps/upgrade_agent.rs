use super::{
    Policy, StepInfo, info,
    values::{PackageRef, Sha256},
};
use serde::{Deserialize, Serialize};

/// A package of the agent, as it was put to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentPackage {
    pub package: PackageRef,
    pub sha256: Sha256,
}

/// The agent serves from the one of these packages that fits its host; which one that is, the package manager of the
/// host says. Undo brings the program back that served before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeAgent {
    pub packages: Vec<AgentPackage>,
}

impl UpgradeAgent {
    /// Name of the package that holds the agent.
    pub const PACKAGE: &str = "oblet-agent";

    pub const INFO: StepInfo = info(
        "Upgrade OCP agent",
        "com.alipay.ocp.service.task.business.obagent.UpgradeOcpAgentTask",
        1800,
        Policy::Probe,
        true,
    );
}
