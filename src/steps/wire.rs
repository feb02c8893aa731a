//! Steps to and from the contract. Whatever leaves this file is checked.

use super::{
    AgentPackage, AgentStep, CheckCommands, CheckHost, CheckInstance, CheckProcesses, ExposeExporter, InstallPackage,
    Instance, InstanceKind, RefreshConfig, RestartAgent, SetObproxyPasswords, StartObproxy, StopAgent,
    SyncObproxyParameters, UpgradeAgent, WorkMode,
    values::{PackageRef, Parameter, Port},
};
use crate::{graph::Direction, rpc::v1};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

/// Grows when the meaning of an existing step changes; part of the fingerprint.
pub const SCHEMA_VERSION: u32 = 1;

/// A field of a request that is wrong, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldViolation {
    pub field: String,
    pub problem: String,
}

fn violation(field: &str, problem: impl ToString) -> FieldViolation {
    FieldViolation { field: field.into(), problem: problem.to_string() }
}

/// SHA-256 over schema version, direction and canonical step, in hexadecimal.
///
/// The contract has no maps inside steps, so their encoding is canonical.
pub fn fingerprint(step: &AgentStep, direction: Direction) -> String {
    let mut hash = Sha256::new();
    hash.update(SCHEMA_VERSION.to_be_bytes());
    hash.update([matches!(direction, Direction::Undo).into()]);
    hash.update(v1::Step::from(step).encode_to_vec());
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl From<&AgentStep> for v1::Step {
    fn from(step: &AgentStep) -> Self {
        use v1::step::Kind;
        let kind = match step {
            AgentStep::CheckCommands(step) => {
                Kind::CheckCommands(v1::CheckCommands { commands: strings(&step.commands) })
            }
            AgentStep::CheckProcesses(step) => {
                Kind::CheckProcesses(v1::CheckProcesses { keywords: strings(&step.keywords) })
            }
            AgentStep::CheckInstance(step) => Kind::CheckInstance(v1::CheckInstance {
                ports: step.ports.iter().map(|port| (*port).into()).collect(),
                architecture: step.architecture.clone(),
                disk_bytes: step.disk_bytes,
            }),
            AgentStep::InstallPackage(step) => Kind::InstallPackage(v1::InstallPackage {
                file_name: step.package.file_name(),
                sha256: step.sha256.to_string(),
                name: step.package.name().into(),
                version: step.package.version().into(),
                release: step.package.release().into(),
                architecture: step.package.architecture().into(),
            }),
            AgentStep::StartObproxy(step) => Kind::StartObproxy(start_obproxy(step)),
            AgentStep::SyncObproxyParameters(step) => Kind::SyncObproxyParameters(v1::SyncObproxyParameters {
                sql_port: step.sql_port.into(),
                parameters: step.parameters.iter().map(v1::Parameter::from).collect(),
            }),
            AgentStep::SetObproxyPasswords(step) => {
                Kind::SetObproxyPasswords(v1::SetObproxyPasswords { sql_port: step.sql_port.into() })
            }
            AgentStep::RefreshConfig(step) => {
                Kind::RefreshConfig(v1::RefreshConfig { instance: Some((&step.instance).into()) })
            }
            AgentStep::ExposeExporter(step) => {
                Kind::ExposeExporter(v1::ExposeExporter { instance: Some((&step.instance).into()) })
            }
            AgentStep::CheckHost(step) => Kind::CheckHost(v1::CheckHost {
                agent_ports: step.agent_ports.iter().map(|port| (*port).into()).collect(),
                disk_bytes: step.disk_bytes,
            }),
            AgentStep::RestartAgent(RestartAgent {}) => Kind::RestartAgent(v1::RestartAgent {}),
            AgentStep::StopAgent(StopAgent {}) => Kind::StopAgent(v1::StopAgent {}),
            AgentStep::UpgradeAgent(step) => {
                let package = |item: &AgentPackage| v1::AgentPackage {
                    file_name: item.package.file_name(),
                    sha256: item.sha256.to_string(),
                };
                Kind::UpgradeAgent(v1::UpgradeAgent { packages: step.packages.iter().map(package).collect() })
            }
        };
        Self { kind: Some(kind) }
    }
}

fn strings<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(T::to_string).collect()
}

fn start_obproxy(step: &StartObproxy) -> v1::StartObproxy {
    use v1::start_obproxy::WorkMode as Wire;
    let work_mode = match &step.work_mode {
        WorkMode::RsList { cluster_name, servers } => Wire::RootServerList(v1::RootServerList {
            cluster_name: cluster_name.to_string(),
            servers: strings(servers),
        }),
        WorkMode::ConfigUrl { url } => Wire::ConfigUrl(v1::ConfigUrl { url: url.clone() }),
    };
    v1::StartObproxy {
        package: step.package.to_string(),
        app_name: step.app_name.to_string(),
        sql_port: step.sql_port.into(),
        exporter_port: step.exporter_port.into(),
        work_mode: Some(work_mode),
        startup_parameters: step.startup_parameters.iter().map(v1::Parameter::from).collect(),
        rpc_port: step.rpc_port.map(u32::from),
    }
}

impl From<&Parameter> for v1::Parameter {
    fn from(parameter: &Parameter) -> Self {
        Self { name: parameter.name.to_string(), value: parameter.value.to_string() }
    }
}

impl From<&Instance> for v1::Instance {
    fn from(instance: &Instance) -> Self {
        Self {
            kind: instance.kind.as_str().into(),
            sql_port: instance.sql_port.into(),
            exporter_port: instance.exporter_port.into(),
            cluster_name: instance.cluster_name.to_string(),
            cluster_id: instance.cluster_id,
            server_id: instance.server_id,
        }
    }
}

impl TryFrom<v1::Step> for AgentStep {
    type Error = FieldViolation;

    fn try_from(step: v1::Step) -> Result<Self, FieldViolation> {
        use v1::step::Kind;
        let kind =
            step.kind.ok_or_else(|| violation("step", "is missing, or is of a kind that this agent does not know"))?;
        Ok(match kind {
            Kind::CheckCommands(step) => Self::CheckCommands(CheckCommands {
                commands: parsed(
                    "step.check_commands.commands",
                    not_empty("step.check_commands.commands", step.commands)?,
                )?,
            }),
            Kind::CheckProcesses(step) => Self::CheckProcesses(CheckProcesses {
                keywords: parsed(
                    "step.check_processes.keywords",
                    not_empty("step.check_processes.keywords", step.keywords)?,
                )?,
            }),
            Kind::CheckInstance(step) => Self::CheckInstance(CheckInstance {
                ports: ports("step.check_instance.ports", &step.ports)?,
                architecture: step.architecture,
                disk_bytes: step.disk_bytes,
            }),
            Kind::InstallPackage(step) => Self::InstallPackage(install_package(step)?),
            Kind::StartObproxy(step) => Self::StartObproxy(parse_start_obproxy(step)?),
            Kind::SyncObproxyParameters(step) => Self::SyncObproxyParameters(SyncObproxyParameters {
                sql_port: port("step.sync_obproxy_parameters.sql_port", step.sql_port)?,
                parameters: parameters("step.sync_obproxy_parameters.parameters", step.parameters)?,
            }),
            Kind::SetObproxyPasswords(step) => Self::SetObproxyPasswords(SetObproxyPasswords {
                sql_port: port("step.set_obproxy_passwords.sql_port", step.sql_port)?,
            }),
            Kind::RefreshConfig(step) => Self::RefreshConfig(RefreshConfig {
                instance: instance("step.refresh_config.instance", step.instance)?,
            }),
            Kind::ExposeExporter(step) => Self::ExposeExporter(ExposeExporter {
                instance: instance("step.expose_exporter.instance", step.instance)?,
            }),
            Kind::CheckHost(step) => Self::CheckHost(CheckHost {
                agent_ports: step
                    .agent_ports
                    .iter()
                    .map(|number| agent_port("step.check_host.agent_ports", *number))
                    .collect::<Result<_, _>>()?,
                disk_bytes: step.disk_bytes,
            }),
            Kind::RestartAgent(v1::RestartAgent {}) => Self::RestartAgent(RestartAgent {}),
            Kind::StopAgent(v1::StopAgent {}) => Self::StopAgent(StopAgent {}),
            Kind::UpgradeAgent(step) => Self::UpgradeAgent(upgrade_agent(step)?),
        })
    }
}

fn install_package(step: v1::InstallPackage) -> Result<InstallPackage, FieldViolation> {
    let package = PackageRef::new(&step.name, &step.version, &step.release, &step.architecture)
        .map_err(|error| violation("step.install_package", error))?;
    if step.file_name != package.file_name() {
        let problem = format!("does not belong to {package}: expected {}", package.file_name());
        return Err(violation("step.install_package.file_name", problem));
    }
    let sha256 = parse_one("step.install_package.sha256", step.sha256)?;
    Ok(InstallPackage { package, sha256 })
}

fn upgrade_agent(step: v1::UpgradeAgent) -> Result<UpgradeAgent, FieldViolation> {
    let field = "step.upgrade_agent.packages";
    if step.packages.is_empty() {
        return Err(violation(field, "is empty"));
    }
    let parse = |item: v1::AgentPackage| {
        let package: PackageRef = parse_one(field, item.file_name.clone())?;
        if package.file_name() != item.file_name || package.name() != UpgradeAgent::PACKAGE {
            return Err(violation(field, format!("{:?} is no package of the agent", item.file_name)));
        }
        Ok(AgentPackage { package, sha256: parse_one(field, item.sha256)? })
    };
    Ok(UpgradeAgent { packages: step.packages.into_iter().map(parse).collect::<Result<_, _>>()? })
}

fn parse_start_obproxy(step: v1::StartObproxy) -> Result<StartObproxy, FieldViolation> {
    use v1::start_obproxy::WorkMode as Wire;
    let work_mode = match step.work_mode.ok_or_else(|| violation("step.start_obproxy.work_mode", "is missing"))? {
        Wire::RootServerList(list) => WorkMode::RsList {
            cluster_name: parse_one("step.start_obproxy.root_server_list.cluster_name", list.cluster_name)?,
            servers: parsed(
                "step.start_obproxy.root_server_list.servers",
                not_empty("step.start_obproxy.root_server_list.servers", list.servers)?,
            )?,
        },
        Wire::ConfigUrl(config) => {
            let printable = !config.url.chars().any(|c| c.is_control() || c == '\'' || c == ',' || c == ' ');
            if !(config.url.starts_with("http://") && config.url.contains('?') && printable) {
                let problem = "must begin with http:// and contain a '?', without blanks, commas or quotes";
                return Err(violation("step.start_obproxy.config_url.url", problem));
            }
            WorkMode::ConfigUrl { url: config.url }
        }
    };
    let startup_parameters = parameters("step.start_obproxy.startup_parameters", step.startup_parameters)?;
    if let Some(bad) = startup_parameters.iter().find(|parameter| parameter.name.as_str().contains("password")) {
        let problem = format!("{} is a secret, which is no parameter", bad.name);
        return Err(violation("step.start_obproxy.startup_parameters", problem));
    }
    Ok(StartObproxy {
        package: parse_one("step.start_obproxy.package", step.package)?,
        app_name: parse_one("step.start_obproxy.app_name", step.app_name)?,
        sql_port: port("step.start_obproxy.sql_port", step.sql_port)?,
        exporter_port: port("step.start_obproxy.exporter_port", step.exporter_port)?,
        rpc_port: step.rpc_port.map(|number| port("step.start_obproxy.rpc_port", number)).transpose()?,
        work_mode,
        startup_parameters,
    })
}

fn instance(field: &str, wire: Option<v1::Instance>) -> Result<Instance, FieldViolation> {
    let wire = wire.ok_or_else(|| violation(field, "is missing"))?;
    let kind = match wire.kind.as_str() {
        "obproxy" => InstanceKind::Obproxy,
        "observer" => InstanceKind::Observer,
        other => return Err(violation(field, format!("kind {other:?} is neither obproxy nor observer"))),
    };
    Ok(Instance {
        kind,
        sql_port: port(field, wire.sql_port)?,
        exporter_port: port(field, wire.exporter_port)?,
        cluster_name: parse_one(field, wire.cluster_name)?,
        cluster_id: wire.cluster_id,
        server_id: wire.server_id,
    })
}

fn parameters(field: &str, list: Vec<v1::Parameter>) -> Result<Vec<Parameter>, FieldViolation> {
    let parse = |item: v1::Parameter| {
        Ok(Parameter { name: parse_one(field, item.name)?, value: parse_one(field, item.value)? })
    };
    list.into_iter().map(parse).collect()
}

fn ports(field: &str, numbers: &[u32]) -> Result<Vec<Port>, FieldViolation> {
    numbers.iter().map(|number| port(field, *number)).collect()
}

fn port(field: &str, number: u32) -> Result<Port, FieldViolation> {
    Port::try_from(i64::from(number)).map_err(|error| violation(field, error))
}

/// Unlike that of an instance, the port of an agent may be any.
fn agent_port(field: &str, number: u32) -> Result<u16, FieldViolation> {
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    port.ok_or_else(|| violation(field, "a port lies between 1 and 65535"))
}

fn not_empty(field: &str, list: Vec<String>) -> Result<Vec<String>, FieldViolation> {
    if list.is_empty() { Err(violation(field, "is empty")) } else { Ok(list) }
}

fn parsed<T: TryFrom<String, Error: ToString>>(field: &str, list: Vec<String>) -> Result<Vec<T>, FieldViolation> {
    list.into_iter().map(|text| parse_one(field, text)).collect()
}

fn parse_one<T: TryFrom<String, Error: ToString>>(field: &str, text: String) -> Result<T, FieldViolation> {
    T::try_from(text).map_err(|error| violation(field, error.to_string()))
}
