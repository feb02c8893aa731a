use crate::steps::{CoordinatorKind, ObproxyRef, Policy, StepInfo, info};
use serde::{Deserialize, Serialize};

/// The proxy is shown as DELETING, and its agent answers. Undo shows it as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareObproxyOffline {
    pub proxy: ObproxyRef,
    /// Its status before.
    pub before: String,
    /// Its host is gone: nobody asks its agent.
    pub skips_host: bool,
}

const INFO: StepInfo = info(
    "Prepare offline obproxy",
    "com.alipay.ocp.service.task.business.obproxy.PrepareOfflineObproxyTask",
    1800,
    Policy::Rerun,
    true,
);

impl CoordinatorKind for PrepareObproxyOffline {
    fn info(&self) -> &'static StepInfo {
        &INFO
    }
}
