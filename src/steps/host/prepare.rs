use crate::steps::{CoordinatorKind, Policy, StepInfo, info};
use serde::{Deserialize, Serialize};

/// What the agent says of its host is kept, if the coordinator can work with it: its clock and its version fit. The host
/// is known since the request; undo forgets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareHost {
    pub host_id: i64,
    /// The port of the agent's metrics is what the agent says.
    pub asks_metrics_port: bool,
}

// OCP documents name and timeout; the class is named after its pattern.
const INFO: StepInfo = info(
    "Pre check for create host",
    "com.alipay.ocp.service.task.business.host.PreCheckForCreateHostTask",
    1800,
    Policy::Rerun,
    true,
);

impl CoordinatorKind for PrepareHost {
    fn info(&self) -> &'static StepInfo {
        &INFO
    }

    fn stands_for_request(&self) -> bool {
        true
    }
}
