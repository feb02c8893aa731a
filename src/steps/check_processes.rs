use super::{Policy, StepInfo, info, values::Keyword};
use serde::{Deserialize, Serialize};

/// No process of the host has one of the keywords in its command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckProcesses {
    pub keywords: Vec<Keyword>,
}

impl CheckProcesses {
    pub const INFO: StepInfo = info(
        "Check if process not exist",
        "com.alipay.ocp.service.task.business.host.CheckProcessNotExistTask",
        300,
        Policy::Pure,
        false,
    );
}
