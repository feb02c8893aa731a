use crate::steps::{CoordinatorKind, Policy, StepInfo, info};
use serde::{Deserialize, Serialize};

/// Parallel branches meet here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {}

const INFO: StepInfo = info("Wait node", "com.alipay.ocp.service.task.business.WaitNode", 30, Policy::Pure, false);

impl CoordinatorKind for Wait {
    fn info(&self) -> &'static StepInfo {
        &INFO
    }
}
