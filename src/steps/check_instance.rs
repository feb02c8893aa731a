use super::{Policy, StepInfo, info, values::Port};
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

impl CheckInstance {
    pub const INFO: StepInfo = info(
        "Prepare create obproxy",
        "com.alipay.ocp.service.task.business.obproxy.PrepareCreateObproxyTask",
        1800,
        Policy::Pure,
        false,
    );
}
