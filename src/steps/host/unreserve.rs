use crate::steps::{CoordinatorKind, Policy, StepInfo, info};
use serde::{Deserialize, Serialize};

/// Each host is shown as what runs on it makes it. The task itself gives its reservations free when it is SUCCESSFUL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreserveHosts {
    pub host_ids: Vec<i64>,
}

const INFO: StepInfo =
    info("Unreserve host", "com.alipay.ocp.service.task.business.host.UnReserveHostTask", 1800, Policy::Rerun, false);

impl CoordinatorKind for UnreserveHosts {
    fn info(&self) -> &'static StepInfo {
        &INFO
    }
}
