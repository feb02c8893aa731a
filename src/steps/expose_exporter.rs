use super::{Instance, Policy, StepInfo, info};
use serde::{Deserialize, Serialize};

/// The exporter port answers exposition text and the agent lists it; undo takes it off the list if this operation put it there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExposeExporter {
    pub instance: Instance,
}

impl ExposeExporter {
    pub const INFO: StepInfo = info(
        "Register obproxy exporter",
        "com.alipay.ocp.service.task.business.obproxy.RegisterObproxyExporterTask",
        30,
        Policy::Rerun,
        true,
    );
}
