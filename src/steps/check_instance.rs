use super::{Policy, StepInfo, info, values::Port};
use serde::{Deserialize, Serialize};

/// The host can take the instance: free ports, a run user, the right architecture, room on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckInstance {
    pub ports: Vec<Port>,
    /// Those of the ports on which the program listens at every address, whatever it is told.
    #[serde(default)]
    pub ports_everywhere: Vec<Port>,
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
