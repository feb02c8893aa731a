use crate::steps::{CoordinatorKind, Policy, StepInfo, info};
use serde::{Deserialize, Serialize};

/// The first node of a task whose branches begin side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {}

const INFO: StepInfo = info("Start node", "com.alipay.ocp.service.task.business.StartNode", 30, Policy::Pure, false);

impl CoordinatorKind for Begin {
    fn info(&self) -> &'static StepInfo {
        &INFO
    }
}
