use super::LOCK;
use crate::{
    rpc::v1,
    steps::{
        AgentKind, FieldViolation, Fields, Policy, StepInfo, info,
        values::{PackageRef, Sha256},
    },
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
}

const INFO: StepInfo = info(
    "Upgrade OCP agent",
    "com.alipay.ocp.service.task.business.obagent.UpgradeOcpAgentTask",
    1800,
    Policy::Probe,
    true,
);

impl AgentKind for UpgradeAgent {
    type Message = v1::UpgradeAgent;

    fn info(&self) -> &'static StepInfo {
        &INFO
    }

    fn lock(&self) -> Option<String> {
        Some(LOCK.into())
    }

    fn packages(&self) -> Vec<(&PackageRef, &Sha256)> {
        self.packages.iter().map(|item| (&item.package, &item.sha256)).collect()
    }

    fn to_message(&self) -> v1::UpgradeAgent {
        let package = |item: &AgentPackage| v1::AgentPackage {
            file_name: item.package.file_name(),
            sha256: item.sha256.to_string(),
        };
        v1::UpgradeAgent { packages: self.packages.iter().map(package).collect() }
    }

    fn from_message(message: v1::UpgradeAgent, fields: Fields) -> Result<Self, FieldViolation> {
        let field = "packages";
        if message.packages.is_empty() {
            return Err(fields.wrong(field, "is empty"));
        }
        let parse = |item: v1::AgentPackage| {
            let package: PackageRef = fields.one(field, item.file_name.clone())?;
            if package.file_name() != item.file_name || package.name() != Self::PACKAGE {
                return Err(fields.wrong(field, format!("{:?} is no package of the agent", item.file_name)));
            }
            Ok(AgentPackage { package, sha256: fields.one(field, item.sha256)? })
        };
        Ok(Self { packages: message.packages.into_iter().map(parse).collect::<Result<_, _>>()? })
    }
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
