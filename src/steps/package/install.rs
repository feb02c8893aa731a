use crate::{
    rpc::v1,
    steps::{
        AgentKind, FieldViolation, Fields, Policy, StepInfo, info,
        values::{PackageRef, Sha256},
    },
};
use serde::{Deserialize, Serialize};

/// Exactly this package is installed; undo erases it if this operation installed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallPackage {
    pub package: PackageRef,
    /// Digest of the file that was put to the agent.
    pub sha256: Sha256,
}

const INFO: StepInfo = info(
    "Install rpm by package and version",
    "com.alipay.ocp.service.task.business.host.InstallRpmByPackageAndVersionTask",
    3600,
    Policy::Probe,
    true,
);

impl AgentKind for InstallPackage {
    type Message = v1::InstallPackage;

    fn info(&self) -> &'static StepInfo {
        &INFO
    }

    fn lock(&self) -> Option<String> {
        Some("rpmdb".into())
    }

    fn packages(&self) -> Vec<(&PackageRef, &Sha256)> {
        vec![(&self.package, &self.sha256)]
    }

    fn to_message(&self) -> v1::InstallPackage {
        v1::InstallPackage {
            file_name: self.package.file_name(),
            sha256: self.sha256.to_string(),
            name: self.package.name().into(),
            version: self.package.version().into(),
            release: self.package.release().into(),
            architecture: self.package.architecture().into(),
        }
    }

    fn from_message(message: v1::InstallPackage, fields: Fields) -> Result<Self, FieldViolation> {
        let v1::InstallPackage { file_name, sha256, name, version, release, architecture } = message;
        let package =
            PackageRef::new(&name, &version, &release, &architecture).map_err(|error| fields.wrong("name", error))?;
        if file_name != package.file_name() {
            let problem = format!("does not belong to {package}: expected {}", package.file_name());
            return Err(fields.wrong("file_name", problem));
        }
        Ok(Self { package, sha256: fields.one("sha256", sha256)? })
    }
}
