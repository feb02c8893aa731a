use crate::steps::{CoordinatorKind, StepInfo, task::finish::FINISH};
use serde::{Deserialize, Serialize};

/// The last node of a task that deletes a proxy cluster: the cluster goes, and with it its passwords, which every undo
/// before it may need. Nothing can fail after it, so nothing is ever undone that comes after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishClusterOffline {
    pub cluster_id: i64,
}

impl CoordinatorKind for FinishClusterOffline {
    fn info(&self) -> &'static StepInfo {
        &FINISH
    }
}
