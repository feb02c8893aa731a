use crate::steps::{CoordinatorKind, Policy, StepInfo, info};
use serde::{Deserialize, Serialize};

/// The last node of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {}

pub(in crate::steps) const FINISH: StepInfo =
    info("Finish node", "com.alipay.ocp.service.task.business.obproxy.FinishTask", 0, Policy::Pure, false);

impl CoordinatorKind for Finish {
    fn info(&self) -> &'static StepInfo {
        &FINISH
    }
}
