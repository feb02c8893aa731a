use super::{Policy, StepInfo, info, values::Port};
use serde::{Deserialize, Serialize};

/// root@proxysys and proxyro@sys have the passwords of the cluster. There is no undo: the instance they belong to goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetObproxyPasswords {
    pub sql_port: Port,
}

impl SetObproxyPasswords {
    pub const INFO: StepInfo = info(
        "Set obproxy user and password for connect",
        "com.alipay.ocp.service.task.business.obproxy.SetObproxyUserPasswordForObTask",
        30,
        Policy::Rerun,
        false,
    );
}
