use super::{
    Policy, StepInfo, info,
    values::{PackageRef, Sha256},
};
use serde::{Deserialize, Serialize};

/// Exactly this package is installed; undo erases it if this operation installed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallPackage {
    pub package: PackageRef,
    /// Digest of the file that was put to the agent.
    pub sha256: Sha256,
}

impl InstallPackage {
    pub const INFO: StepInfo = info(
        "Install rpm by package and version",
        "com.alipay.ocp.service.task.business.host.InstallRpmByPackageAndVersionTask",
        3600,
        Policy::Probe,
        true,
    );
}
