use crate::steps::{CoordinatorKind, Policy, StepInfo, info};
use serde::{Deserialize, Serialize};

/// The proxy is shown as running; undo takes that back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateObproxyStatus {
    pub cluster_id: i64,
    pub server_id: i64,
}

const INFO: StepInfo = info(
    "Update obproxy status",
    "com.alipay.ocp.service.task.business.obproxy.UpdateObproxyStatusTask",
    300,
    Policy::Rerun,
    true,
);

impl CoordinatorKind for UpdateObproxyStatus {
    fn info(&self) -> &'static StepInfo {
        &INFO
    }
}
