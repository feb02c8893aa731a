//! Configuration of the agent.

use super::{
    host::{HostSettings, SupervisorChoice},
    logs::MAX_LOG_BYTES,
    server::Settings,
};
use crate::{
    config::{ConfigError, Given, Layers},
    telemetry::{LogFormat, chain},
    tls::IdentityPaths,
};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// Carries out the coordinator's steps on a database host.
#[derive(Debug, Default, clap::Parser, Serialize)]
#[command(
    name = "oblet-agent",
    version,
    after_help = "oblet-agent enroll asks a coordinator for this host's certificate."
)]
pub struct Flags {
    /// TOML file with settings of these names, '_' instead of '-'.
    #[arg(long, env = "OBLET_AGENT_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Check the configuration and exit.
    #[arg(long)]
    #[serde(skip)]
    pub check_config: bool,
    /// Address of the gRPC service [default: 0.0.0.0:62898].
    #[arg(long, env = "OBLET_AGENT_LISTEN")]
    pub listen: Option<String>,
    /// Address of the metrics of agent and host, or "off" [default: 0.0.0.0:62899].
    #[arg(long, env = "OBLET_AGENT_METRICS_LISTEN")]
    pub metrics_listen: Option<String>,
    /// Journal, logs and packages [default: /var/lib/oblet-agent].
    #[arg(long, env = "OBLET_AGENT_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Manage only what is below this directory instead of the whole machine [default: /].
    #[arg(long, env = "OBLET_AGENT_ROOT_DIR")]
    pub root_dir: Option<PathBuf>,
    /// What starts database processes: "systemd", "direct", or "auto", systemd where possible [default: auto].
    #[arg(long, env = "OBLET_AGENT_SUPERVISOR")]
    pub supervisor: Option<String>,
    /// IP address of this host that instances listen on [default: all].
    #[arg(long, env = "OBLET_AGENT_ADDRESS")]
    pub address: Option<IpAddr>,
    /// User that database processes run as [default: admin].
    #[arg(long, env = "OBLET_AGENT_RUN_USER")]
    pub run_user: Option<String>,
    /// Directory of the proxies, one below it for each SQL port [default: /home/admin/obproxy].
    #[arg(long, env = "OBLET_AGENT_RUN_PATH")]
    pub run_path: Option<PathBuf>,
    /// Certificate of the authority that issues the coordinator's certificate [default: /etc/oblet-agent/ca.pem].
    #[arg(long, env = "OBLET_AGENT_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
    /// Certificate of this agent [default: /etc/oblet-agent/agent.pem].
    #[arg(long, env = "OBLET_AGENT_TLS_CERTIFICATE")]
    pub tls_certificate: Option<PathBuf>,
    /// Private key of this agent [default: /etc/oblet-agent/agent.key].
    #[arg(long, env = "OBLET_AGENT_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// What is logged, such as "info" or "oblet=debug,info" [default: info].
    #[arg(long, env = "OBLET_AGENT_LOG_FILTER")]
    pub log_filter: Option<String>,
    /// Where log lines go: auto, text or json on stderr, or journal [default: auto, the journal if it reads stderr].
    #[arg(long, env = "OBLET_AGENT_LOG_FORMAT")]
    pub log_format: Option<String>,
    /// Enable gRPC reflection [default: false].
    #[arg(long, env = "OBLET_AGENT_REFLECTION", num_args = 0..=1, default_missing_value = "true")]
    pub reflection: Option<bool>,
    /// Days that acknowledged operations and their logs are kept [default: 30].
    #[arg(long, env = "OBLET_AGENT_RETENTION_DAYS")]
    pub retention_days: Option<u32>,
    /// Maximum size in bytes of all logs of operations; the oldest acknowledged ones are removed first [default:
    /// 1073741824].
    #[arg(long, env = "OBLET_AGENT_LOG_LIMIT_BYTES")]
    pub log_limit_bytes: Option<u64>,
    /// Seconds that calls get to finish when the agent stops [default: 10].
    #[arg(long, env = "OBLET_AGENT_GRACE_SECONDS")]
    pub grace_seconds: Option<u32>,
    /// Run the scriptlets of packages [default: true if the root directory is /].
    #[arg(long, env = "OBLET_AGENT_RPM_SCRIPTLETS")]
    pub rpm_scriptlets: Option<bool>,
    /// Check the dependencies of packages [default: true if the root directory is /].
    #[arg(long, env = "OBLET_AGENT_RPM_DEPENDENCIES")]
    pub rpm_dependencies: Option<bool>,
}

/// A configuration that was read and found right.
pub struct Config {
    pub service: Settings,
    pub metrics_listen: Option<SocketAddr>,
    pub host: HostSettings,
    pub supervisor: SupervisorChoice,
    pub log_filter: String,
    pub log_format: LogFormat,
    /// What was given, to be compared with what is given later.
    pub given: Given,
}

const LISTEN_PORT: u16 = 62898;
const METRICS_PORT: u16 = 62899;
const LOG_LIMIT_BYTES: u64 = 1 << 30;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A listener that can be switched off.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Switchable(Option<SocketAddr>);

impl TryFrom<String> for Switchable {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "off" => Ok(Self(None)),
            address => address
                .parse()
                .map(|address| Self(Some(address)))
                .map_err(|_| format!("{text:?} is neither \"off\" nor an address and a port")),
        }
    }
}

impl Config {
    /// Reads all layers and the files they name; opens no port and changes nothing.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let mut layers = Layers::new(flags, flags.config.as_deref());
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let listen = layers.or("listen", any(LISTEN_PORT));
        let Switchable(metrics_listen) = layers.or("metrics_listen", Switchable(Some(any(METRICS_PORT))));
        if metrics_listen.is_some_and(|metrics| metrics.port() != 0 && metrics.port() == listen.port()) {
            layers.mistake("metrics_listen", "has the port of listen");
        }
        let state_dir = absolute(&mut layers, "state_dir", "/var/lib/oblet-agent");
        let root_dir = absolute(&mut layers, "root_dir", "/");
        let whole_machine = root_dir == Path::new("/");
        let supervisor = layers.or("supervisor", SupervisorChoice::Auto);
        if supervisor == SupervisorChoice::Systemd && !whole_machine {
            layers.mistake("supervisor", "is systemd, which manages the whole machine, and root_dir is not /");
        }
        let host = HostSettings {
            root_dir: root_dir.clone(),
            state_dir: state_dir.clone(),
            address: layers.optional("address"),
            run_user: layers.or("run_user", "admin".to_owned()),
            run_path: absolute(&mut layers, "run_path", "/home/admin/obproxy"),
            rpm_scriptlets: layers.or("rpm_scriptlets", whole_machine),
            rpm_dependencies: layers.or("rpm_dependencies", whole_machine),
            search_path: HostSettings::default_search_path(),
        };
        if host.run_user.is_empty() {
            layers.mistake("run_user", "is empty");
        }
        let log_filter = layers.or("log_filter", "info".to_owned());
        if let Err(error) = log_filter.parse::<tracing_subscriber::EnvFilter>() {
            layers.mistake("log_filter", error);
        }
        let log_format = layers.or("log_format", LogFormat::default());
        let reflection = layers.or("reflection", false);
        let retention_days: u32 = layers.or("retention_days", 30);
        if retention_days == 0 {
            layers.mistake("retention_days", "is 0");
        }
        let log_limit_bytes: u64 = layers.or("log_limit_bytes", LOG_LIMIT_BYTES);
        if log_limit_bytes < MAX_LOG_BYTES {
            layers.mistake("log_limit_bytes", format!("is below {MAX_LOG_BYTES}, the limit of one log"));
        }
        let grace_seconds: u32 = layers.or("grace_seconds", 10);
        let identity_paths = identity_paths(&mut layers);
        let unreadable = |error| layers.mistake("tls", format!("{}{}", chain(&error), hint(&identity_paths)));
        let identity = identity_paths.read().map_err(unreadable).ok();
        let given = layers.finish()?;
        // An identity that could not be read is a mistake, and mistakes have ended this function.
        let identity = identity.ok_or_else(|| ConfigError(Vec::new()))?;
        let service = Settings {
            listen,
            metrics_port: metrics_listen.map_or(0, |address| address.port()),
            state_dir,
            root_dir,
            identity,
            identity_paths: Some(identity_paths),
            reflection,
            retention: DAY * retention_days,
            log_limit_bytes,
            grace: Duration::from_secs(grace_seconds.into()),
        };
        Ok(Self { service, metrics_listen, host, supervisor, log_filter, log_format, given })
    }
}

fn absolute(layers: &mut Layers, name: &'static str, default: &str) -> PathBuf {
    let path = layers.or(name, PathBuf::from(default));
    if !path.is_absolute() {
        layers.mistake(name, format!("{} is not an absolute path", path.display()));
    }
    path
}

/// What a host lacks that was just installed.
fn hint(paths: &IdentityPaths) -> &'static str {
    if paths.certificate.exists() {
        ""
    } else {
        "; enrol this host with the command that oblet host add --token prints"
    }
}

/// Where the agent's certificates are, also before there are any.
pub(super) fn identity_paths(layers: &mut Layers) -> IdentityPaths {
    IdentityPaths {
        ca: absolute(layers, "tls_ca", "/etc/oblet-agent/ca.pem"),
        certificate: absolute(layers, "tls_certificate", "/etc/oblet-agent/agent.pem"),
        key: absolute(layers, "tls_key", "/etc/oblet-agent/agent.key"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{CertificateAuthority, Role};
    use clap::Parser as _;
    use std::fs;

    fn certificates(directory: &Path) -> Flags {
        let authority = CertificateAuthority::load_or_create(directory).unwrap();
        authority.issue(Role::Agent, "agent", &[]).unwrap().write(directory, "agent").unwrap();
        Flags {
            tls_ca: Some(directory.join("ca.pem")),
            tls_certificate: Some(directory.join("agent.pem")),
            tls_key: Some(directory.join("agent.key")),
            ..Flags::default()
        }
    }

    #[test]
    fn defaults_are_those_of_the_manual() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::load(&certificates(directory.path())).unwrap();
        assert_eq!(config.service.listen.to_string(), "0.0.0.0:62898");
        assert_eq!(config.metrics_listen.unwrap().to_string(), "0.0.0.0:62899");
        assert!(config.host.rpm_scriptlets && config.host.rpm_dependencies);
        assert!(!config.service.reflection);
        assert_eq!(config.service.log_limit_bytes, 1_073_741_824);
    }

    #[test]
    fn a_root_directory_changes_how_packages_are_installed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("agent.toml");
        fs::write(&file, "root_dir = '/srv/host1'\nmetrics_listen = 'off'\nrpm_dependencies = true").unwrap();
        let flags = Flags { config: Some(file), ..certificates(directory.path()) };
        let config = Config::load(&flags).unwrap();
        assert_eq!((config.host.rpm_scriptlets, config.host.rpm_dependencies), (false, true));
        assert_eq!((config.metrics_listen, config.service.metrics_port), (None, 0));
    }

    #[test]
    fn systemd_manages_no_part_of_a_machine() {
        let directory = tempfile::tempdir().unwrap();
        let supervisor = |name: &str, root: &str| {
            let flags =
                Flags { supervisor: Some(name.into()), root_dir: Some(root.into()), ..certificates(directory.path()) };
            Config::load(&flags).map(|config| config.supervisor).map_err(|mistakes| mistakes.to_string())
        };
        assert_eq!(supervisor("systemd", "/").unwrap(), SupervisorChoice::Systemd);
        assert_eq!(supervisor("direct", "/srv/host1").unwrap(), SupervisorChoice::Direct);
        assert!(supervisor("systemd", "/srv/host1").unwrap_err().contains("root_dir is not /"));
        assert!(supervisor("upstart", "/").unwrap_err().contains("supervisor"));
    }

    #[test]
    fn every_mistake_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("agent.toml");
        fs::write(&file, "listen = 'nowhere'\nstate_dir = 'here'\nretention_days = 0\nlog_limit_bytes = 7\nlog_format = 'xml'\ntypo = 1")
            .unwrap();
        let missing = directory.path().join("missing.pem");
        let flags = Flags { config: Some(file), tls_ca: Some(missing), ..certificates(directory.path()) };
        let told = Config::load(&flags).err().unwrap().to_string();
        for name in
            ["listen", "state_dir", "retention_days", "log_limit_bytes", "log_format", "typo", "tls", "missing.pem"]
        {
            assert!(told.contains(name), "{name} is not in {told}");
        }
    }

    #[test]
    fn a_host_without_a_certificate_is_told_how_it_gets_one() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("agent.pem");
        let flags = Flags { tls_certificate: Some(missing.clone()), ..Flags::default() };
        let told = Config::load(&flags).err().unwrap().to_string();
        assert!(told.contains("oblet host add --token"), "{told}");
        fs::write(missing, "damaged").unwrap();
        let told = Config::load(&flags).err().unwrap().to_string();
        assert!(!told.contains("oblet host add --token"), "{told}");
    }

    #[test]
    fn flags_have_the_names_of_the_settings() {
        let flags = Flags::try_parse_from(["oblet-agent", "--listen", "127.0.0.1:0", "--reflection"]).unwrap();
        assert_eq!((flags.listen.as_deref(), flags.reflection), (Some("127.0.0.1:0"), Some(true)));
        assert!(Flags::try_parse_from(["oblet-agent", "--lisen", "x"]).is_err());
    }
}
