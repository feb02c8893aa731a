use super::{
    Policy, StepInfo, info,
    values::{ClusterName, PackageRef, Parameter, Port, ServerAddress},
};
use serde::{Deserialize, Serialize};

/// Where an obproxy learns of its clusters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkMode {
    /// One cluster whose servers are listed by SQL address.
    RsList { cluster_name: ClusterName, servers: Vec<ServerAddress> },
    /// A config service. The URL holds a `?`, because obproxy appends `&VersionOnly=true` to it.
    ConfigUrl { url: String },
}

/// An obproxy runs, has the passwords of its cluster and these items, and serves: root@proxysys can log in, every port
/// answers. Undo stops it if this operation started it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartObproxy {
    pub package: PackageRef,
    /// OCP gives a proxy the name of its proxy cluster.
    pub app_name: ClusterName,
    pub sql_port: Port,
    pub exporter_port: Port,
    /// None for versions that have no such port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpc_port: Option<Port>,
    pub work_mode: WorkMode,
    pub startup_parameters: Vec<Parameter>,
}

impl StartObproxy {
    pub const INFO: StepInfo = info(
        "Start obproxy process",
        "com.alipay.ocp.service.task.business.obproxy.StartObproxyTask",
        600,
        Policy::Probe,
        true,
    );
}
