use super::{
    Policy, StepInfo, info,
    values::{Parameter, Port},
};
use serde::{Deserialize, Serialize};

/// Items that can change at run time have these values. There is no undo: the instance they belong to goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncObproxyParameters {
    pub sql_port: Port,
    pub parameters: Vec<Parameter>,
}

impl SyncObproxyParameters {
    pub const INFO: StepInfo = info(
        "Sync obproxy parameter",
        "com.alipay.ocp.service.task.business.obproxy.SyncObproxyParameterTask",
        30,
        Policy::Rerun,
        false,
    );
}
