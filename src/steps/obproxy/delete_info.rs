use crate::steps::{
    CoordinatorKind, ObproxyRef, Policy, StepInfo, info,
    values::{PackageRef, Port},
};
use serde::{Deserialize, Serialize};

/// The coordinator does not know these proxies any more; undo makes it know them again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteObproxyInfo {
    pub proxies: Vec<KnownObproxy>,
}

/// All that the coordinator knows of a proxy, but its status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownObproxy {
    pub proxy: ObproxyRef,
    pub host_id: i64,
    pub sql_port: Port,
    pub exporter_port: Port,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpc_port: Option<Port>,
    pub version: PackageRef,
    pub parameter_version: i64,
    /// In microseconds since 1970.
    pub created_at: i64,
}

const INFO: StepInfo = info(
    "Delete obproxy info",
    "com.alipay.ocp.service.task.business.obproxy.DeleteObproxyMetaInfoTask",
    300,
    Policy::Rerun,
    true,
);

impl CoordinatorKind for DeleteObproxyInfo {
    fn info(&self) -> &'static StepInfo {
        &INFO
    }
}
