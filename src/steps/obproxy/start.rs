use super::lock;
use crate::{
    rpc::v1::{self, start_obproxy::WorkMode as WireMode},
    steps::{
        AgentKind, FieldViolation, Fields, OBPROXY_SYS_PASSWORD, OBSERVER_SYS_PASSWORD, Policy, StepInfo,
        fields::strings,
        info,
        values::{ClusterName, PackageRef, Parameter, Port, ServerAddress},
    },
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

const INFO: StepInfo = info(
    "Start obproxy process",
    "com.alipay.ocp.service.task.business.obproxy.StartObproxyTask",
    600,
    Policy::Probe,
    true,
);

impl WorkMode {
    fn to_message(&self) -> WireMode {
        match self {
            Self::RsList { cluster_name, servers } => WireMode::RootServerList(v1::RootServerList {
                cluster_name: cluster_name.to_string(),
                servers: strings(servers),
            }),
            Self::ConfigUrl { url } => WireMode::ConfigUrl(v1::ConfigUrl { url: url.clone() }),
        }
    }

    fn from_message(message: Option<WireMode>, fields: Fields) -> Result<Self, FieldViolation> {
        match fields.given("work_mode", message)? {
            WireMode::RootServerList(list) => Ok(Self::RsList {
                cluster_name: fields.one("root_server_list.cluster_name", list.cluster_name)?,
                servers: fields.some("root_server_list.servers", list.servers)?,
            }),
            WireMode::ConfigUrl(v1::ConfigUrl { url }) => {
                let printable = !url.chars().any(|c| c.is_control() || c == '\'' || c == ',' || c == ' ');
                if !(url.starts_with("http://") && url.contains('?') && printable) {
                    let problem = "must begin with http:// and contain a '?', without blanks, commas or quotes";
                    return Err(fields.wrong("config_url.url", problem));
                }
                Ok(Self::ConfigUrl { url })
            }
        }
    }
}

impl AgentKind for StartObproxy {
    type Message = v1::StartObproxy;

    fn info(&self) -> &'static StepInfo {
        &INFO
    }

    fn lock(&self) -> Option<String> {
        Some(lock(self.sql_port))
    }

    fn secrets(&self) -> &'static [&'static str] {
        &[OBPROXY_SYS_PASSWORD, OBSERVER_SYS_PASSWORD]
    }

    fn to_message(&self) -> v1::StartObproxy {
        v1::StartObproxy {
            package: self.package.to_string(),
            app_name: self.app_name.to_string(),
            sql_port: self.sql_port.into(),
            exporter_port: self.exporter_port.into(),
            work_mode: Some(self.work_mode.to_message()),
            startup_parameters: self.startup_parameters.iter().map(v1::Parameter::from).collect(),
            rpc_port: self.rpc_port.map(u32::from),
        }
    }

    fn from_message(message: v1::StartObproxy, fields: Fields) -> Result<Self, FieldViolation> {
        let startup_parameters = fields.parameters("startup_parameters", message.startup_parameters)?;
        if let Some(bad) = startup_parameters.iter().find(|parameter| parameter.name.as_str().contains("password")) {
            let problem = format!("{} is a secret, which is no parameter", bad.name);
            return Err(fields.wrong("startup_parameters", problem));
        }
        Ok(Self {
            package: fields.one("package", message.package)?,
            app_name: fields.one("app_name", message.app_name)?,
            sql_port: fields.port("sql_port", message.sql_port)?,
            exporter_port: fields.port("exporter_port", message.exporter_port)?,
            rpc_port: message.rpc_port.map(|number| fields.port("rpc_port", number)).transpose()?,
            work_mode: WorkMode::from_message(message.work_mode, fields)?,
            startup_parameters,
        })
    }
}
