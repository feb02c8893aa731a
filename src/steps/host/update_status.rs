use crate::steps::{CoordinatorKind, Policy, StepInfo, info};
use serde::{Deserialize, Serialize};

/// The host can be used; undo takes that back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateHostStatus {
    pub host_id: i64,
}

// OCP documents name and timeout; the class is named after its pattern.
const INFO: StepInfo = info(
    "Update host status",
    "com.alipay.ocp.service.task.business.host.UpdateHostStatusTask",
    1800,
    Policy::Rerun,
    true,
);

impl CoordinatorKind for UpdateHostStatus {
    fn info(&self) -> &'static StepInfo {
        &INFO
    }
}
