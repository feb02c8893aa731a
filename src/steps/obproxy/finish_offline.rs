use crate::steps::{CoordinatorKind, Policy, StepInfo, task::finish::FINISH};
use serde::{Deserialize, Serialize};

/// The last node of a task that deletes a proxy cluster: the cluster goes, and with it its passwords, which every undo before
/// it may need. It has no undo, so a cancel comes too late once it has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishClusterOffline {
    pub cluster_id: i64,
}

const INFO: StepInfo = StepInfo { policy: Policy::Rerun, ..FINISH };

impl CoordinatorKind for FinishClusterOffline {
    fn info(&self) -> &'static StepInfo {
        &INFO
    }

    fn is_cancelable(&self) -> bool {
        false
    }
}
