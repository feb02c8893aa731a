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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{rpc::v1, steps::AgentStep};

    #[test]
    fn only_packages_of_the_agent_come_through_the_contract() {
        let item =
            |name: &str| AgentPackage { package: name.parse().unwrap(), sha256: "a".repeat(64).parse().unwrap() };
        let packages = vec![item("oblet-agent-0.1.0-2.x86_64.rpm"), item("oblet-agent_0.1.0-2_amd64.deb")];
        let step = AgentStep::UpgradeAgent(UpgradeAgent { packages });
        assert_eq!(AgentStep::try_from(v1::Step::from(&step)).unwrap(), step);
        for packages in [vec![], vec![item("obproxy-1.9.1.1-1.x86_64")]] {
            let step = AgentStep::UpgradeAgent(UpgradeAgent { packages });
            let violation = AgentStep::try_from(v1::Step::from(&step)).unwrap_err();
            assert_eq!(violation.field, "step.upgrade_agent.packages");
        }
    }
}
