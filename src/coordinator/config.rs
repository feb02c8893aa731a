//! Configuration of the coordinator.

use super::network::Network;
use crate::{
    config::{ConfigError, Given, Layers},
    telemetry::LogFormat,
    tls::{CERTIFICATE_LIFE, Endpoint, Role},
};
use serde::Serialize;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// Answers OCP's REST API and drives the agents of the database hosts.
#[derive(Debug, Default, clap::Parser, Serialize)]
#[command(name = "oblet-coordinator", version)]
pub struct Flags {
    #[command(flatten)]
    pub settings: SettingFlags,
    /// Check the configuration and exit.
    #[arg(long)]
    #[serde(skip)]
    pub check_config: bool,
    #[command(subcommand)]
    #[serde(skip)]
    pub command: Option<Subcommand>,
}

/// The settings that a flag can overrule.
#[derive(Debug, Default, clap::Args, Serialize)]
pub struct SettingFlags {
    /// TOML file with settings of these names, '_' instead of '-'.
    #[arg(long, env = "OBLET_COORDINATOR_CONFIG", global = true)]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Address of the HTTPS service [default: 0.0.0.0:8443].
    #[arg(long, env = "OBLET_COORDINATOR_LISTEN")]
    pub listen: Option<String>,
    /// Store, packages, certificates and keys [default: /var/lib/oblet-coordinator].
    #[arg(long, env = "OBLET_COORDINATOR_STATE_DIR", global = true)]
    pub state_dir: Option<PathBuf>,
    /// IP addresses and names of this coordinator, for its certificate; the first is in the URLs that it gives, and is
    /// shown as a task's executor [default: the address of listen, or 127.0.0.1].
    #[arg(long, env = "OBLET_COORDINATOR_ADVERTISE_ADDRESSES", value_delimiter = ',')]
    pub advertise_addresses: Option<Vec<Endpoint>>,
    /// File for the password of the first user, readable by this user only [default: it is printed once, or written
    /// to initial-password in the state directory if the journal reads stderr].
    #[arg(long, env = "OBLET_COORDINATOR_INITIAL_PASSWORD_FILE")]
    pub initial_password_file: Option<PathBuf>,
    /// Address of the same service without TLS, such as 127.0.0.1:8081: passwords cross the network in clear text. A port
    /// alone is one of 127.0.0.1 [default: there is none].
    #[arg(long, env = "OBLET_COORDINATOR_HTTP_LISTEN")]
    pub http_listen: Option<String>,
    /// Address of the config service for proxies and observers, which support plain HTTP only [default: 0.0.0.0:8080].
    #[arg(long, env = "OBLET_COORDINATOR_CONFIG_SERVICE_LISTEN")]
    pub config_service_listen: Option<String>,
    /// Addresses and networks, such as 10.0.0.0/8, of observers whose reports the config service accepts, besides those on the
    /// coordinator's hosts [default: there are none].
    #[arg(long, env = "OBLET_COORDINATOR_CONFIG_SERVICE_REPORTERS", value_delimiter = ',')]
    pub config_service_reporters: Option<Vec<Network>>,
    /// Base of the config service's URL that proxies get [default: http://<first advertised address>:<its port>].
    #[arg(long, env = "OBLET_COORDINATOR_CONFIG_URL_BASE")]
    pub config_url_base: Option<String>,
    /// What is logged, such as "info" or "oblet=debug,info" [default: info].
    #[arg(long, env = "OBLET_COORDINATOR_LOG_FILTER", global = true)]
    pub log_filter: Option<String>,
    /// Where log lines go: auto, text or json on stderr, or journal [default: auto, the journal if it reads stderr].
    #[arg(long, env = "OBLET_COORDINATOR_LOG_FORMAT", global = true)]
    pub log_format: Option<String>,
    /// Days that logs of subtasks are kept after their task has ended [default: 90].
    #[arg(long, env = "OBLET_COORDINATOR_LOG_RETENTION_DAYS")]
    pub log_retention_days: Option<u32>,
    /// Maximum size in bytes of all logs of subtasks; those of the oldest tasks are removed first [default: 4 GiB].
    #[arg(long, env = "OBLET_COORDINATOR_LOG_LIMIT_BYTES")]
    pub log_limit_bytes: Option<u64>,
    /// Days that tasks are kept after they have ended, with their events, entries of the audit log, and expired enrolment
    /// tokens and certificates; the newest 1,000 tasks stay [default: 90].
    #[arg(long, env = "OBLET_COORDINATOR_TASK_RETENTION_DAYS")]
    pub task_retention_days: Option<u32>,
    /// Tasks that are under way at a time; others wait for their turn. A task that waits for hosts that do not answer does not
    /// count [default: 1000].
    #[arg(long, env = "OBLET_COORDINATOR_RUNNING_TASKS")]
    pub running_tasks: Option<u32>,
    /// Validity in seconds of agents' certificates; they are renewed between half and two thirds of it [default:
    /// 31536000].
    #[arg(long, env = "OBLET_COORDINATOR_AGENT_CERTIFICATE_SECONDS")]
    pub agent_certificate_seconds: Option<u64>,
    /// Seconds that requests get to finish when the coordinator stops [default: 10].
    #[arg(long, env = "OBLET_COORDINATOR_GRACE_SECONDS")]
    pub grace_seconds: Option<u32>,
}

#[derive(Debug, clap::Subcommand)]
pub enum Subcommand {
    /// Change users without the password of one.
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Issue a certificate of this coordinator's authority: for an agent, or for another caller of agents. A host that was
    /// revoked or removed is trusted again with it. The coordinator may run.
    Certificate {
        #[arg(long, value_enum)]
        role: Role,
        /// Name in the certificate, such as the host's.
        #[arg(long)]
        name: String,
        /// IP address that the certificate is valid for.
        #[arg(long = "address")]
        addresses: Vec<IpAddr>,
        /// Directory for ca.pem, the certificate and its key.
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Debug, clap::Subcommand)]
pub enum UserCommand {
    /// Set the password of a user, which is read from standard input. The coordinator may run.
    SetPassword {
        /// Such as admin.
        name: String,
    },
}

/// A configuration that was found right.
#[derive(Debug, Clone)]
pub struct Config {
    pub listen: SocketAddr,
    pub state_dir: PathBuf,
    /// At least one.
    pub advertise_addresses: Vec<Endpoint>,
    pub initial_password_file: Option<PathBuf>,
    pub config_service_listen: SocketAddr,
    /// Whose reports the config service accepts, besides those of the coordinator's hosts.
    pub config_service_reporters: Vec<Network>,
    /// Where the REST API is served without TLS.
    pub http_listen: Option<SocketAddr>,
    pub config_url_base: String,
    pub log_filter: String,
    pub log_format: LogFormat,
    pub retention: Retention,
    /// Tasks that are under way at a time.
    pub running_tasks: usize,
    /// How long certificates of agents are good for.
    pub agent_certificate_life: Duration,
    pub grace: Duration,
    /// What was given, to be compared with what is given later.
    pub given: Given,
}

/// How long is kept what tasks leave behind.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Logs of subtasks, after their task came to rest.
    pub logs: Duration,
    /// All logs together.
    pub log_limit_bytes: u64,
    /// Tasks, after they came to rest; entries of the audit log; enrolment tokens and certificates that have expired.
    pub tasks: Duration,
}

/// How long the key of a request is known.
pub const REQUEST_KEY_DAYS: u32 = 7;

const DAY: Duration = Duration::from_secs(86_400);

/// More take more memory and are over no sooner (`docs/decisions/0009`).
const RUNNING_TASKS: u32 = 1000;
/// For trials: a renewal takes a second, and is tried more than once before the certificate runs out.
const SHORTEST_LIFE_SECONDS: u64 = 10;
/// Half the life of the authority.
const LONGEST_LIFE_SECONDS: u64 = 5 * 365 * 86_400;

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8443);
/// OCP's own port.
const CONFIG_SERVICE_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);

impl Config {
    /// Reads all layers; opens no port and changes nothing.
    pub fn load(flags: &SettingFlags) -> Result<Self, ConfigError> {
        let mut layers = Layers::new(flags, flags.config.as_deref());
        let listen = layers.or("listen", LISTEN);
        let own = if listen.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { listen.ip() };
        let own = Endpoint::Ip(own);
        let advertise_addresses = layers.or("advertise_addresses", vec![own.clone()]);
        let first = advertise_addresses.first().unwrap_or(&own);
        if advertise_addresses.is_empty() {
            layers.mistake("advertise_addresses", "is empty");
        }
        let state_dir: PathBuf = layers.or("state_dir", PathBuf::from("/var/lib/oblet-coordinator"));
        if !state_dir.is_absolute() {
            layers.mistake("state_dir", format!("{} is not an absolute path", state_dir.display()));
        }
        let config_service_listen = layers.or("config_service_listen", CONFIG_SERVICE_LISTEN);
        if config_service_listen == listen {
            layers.mistake("config_service_listen", "is the address of listen");
        }
        let http_listen: Option<String> = layers.optional("http_listen");
        let http_listen = http_listen.and_then(|text| {
            let address = text.parse().or_else(|_| text.parse().map(|port| (Ipv4Addr::LOCALHOST, port).into()));
            if address.is_err() {
                layers.mistake("http_listen", format!("{text:?} is neither an address with a port nor a port"));
            }
            address.ok()
        });
        let is_taken = |address: &SocketAddr| address.port() != 0 && [listen, config_service_listen].contains(address);
        if http_listen.as_ref().is_some_and(is_taken) {
            layers.mistake("http_listen", "is the address of another service of the coordinator");
        }
        let config_service_reporters = layers.or("config_service_reporters", Vec::new());
        let default_base = format!("http://{}", first.with_port(config_service_listen.port()));
        let config_url_base: String = layers.or("config_url_base", default_base);
        if !config_url_base.starts_with("http://") || config_url_base.ends_with('/') {
            layers.mistake("config_url_base", "must begin with http:// and must not end with a slash");
        }
        let log_filter = layers.or("log_filter", "info".to_owned());
        if let Err(error) = log_filter.parse::<tracing_subscriber::EnvFilter>() {
            layers.mistake("log_filter", error);
        }
        let log_retention_days: u32 = layers.or("log_retention_days", 90);
        if log_retention_days == 0 {
            layers.mistake("log_retention_days", "is 0");
        }
        let limit_bytes = layers.or("log_limit_bytes", 4_u64 << 30);
        let task_retention_days: u32 = layers.or("task_retention_days", 90);
        if task_retention_days < REQUEST_KEY_DAYS {
            let why =
                format!("is less than the {REQUEST_KEY_DAYS} days for which the key of a request names its tasks");
            layers.mistake("task_retention_days", why);
        }
        let running_tasks: u32 = layers.or("running_tasks", RUNNING_TASKS);
        if running_tasks == 0 {
            layers.mistake("running_tasks", "is 0");
        }
        let initial_password_file = layers.optional("initial_password_file");
        let log_format = layers.or("log_format", LogFormat::default());
        let grace_seconds: u32 = layers.or("grace_seconds", 10);
        let life = layers.or("agent_certificate_seconds", CERTIFICATE_LIFE.as_secs());
        if !(SHORTEST_LIFE_SECONDS..=LONGEST_LIFE_SECONDS).contains(&life) {
            let limits = format!("is not from {SHORTEST_LIFE_SECONDS} to {LONGEST_LIFE_SECONDS}");
            layers.mistake("agent_certificate_seconds", limits);
        }
        let given = layers.finish()?;
        Ok(Self {
            listen,
            state_dir,
            advertise_addresses,
            initial_password_file,
            config_service_listen,
            config_service_reporters,
            http_listen,
            config_url_base,
            log_filter,
            log_format,
            retention: Retention {
                logs: DAY * log_retention_days,
                log_limit_bytes: limit_bytes,
                tasks: DAY * task_retention_days,
            },
            running_tasks: usize::try_from(running_tasks).unwrap_or(usize::MAX),
            agent_certificate_life: Duration::from_secs(life),
            grace: Duration::from_secs(grace_seconds.into()),
            given,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_manual() {
        let config = Config::load(&SettingFlags::default()).unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:8443");
        assert_eq!(config.config_url_base, "http://127.0.0.1:8080");
        assert_eq!(config.config_service_reporters, []);
    }

    #[test]
    fn reporters_are_addresses_and_networks_wherever_they_are_given() {
        use clap::Parser as _;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("coordinator.toml");
        std::fs::write(&file, "config_service_reporters = ['10.0.0.0/8', '2001:db8::1']").unwrap();
        let flags = SettingFlags { config: Some(file), ..SettingFlags::default() };
        let networks = ["10.0.0.0/8", "2001:db8::1"].map(|text| text.parse().unwrap());
        assert_eq!(Config::load(&flags).unwrap().config_service_reporters, networks);
        let flags = Flags::parse_from(["oblet-coordinator", "--config-service-reporters", "10.0.0.0/8,2001:db8::1"]);
        assert_eq!(Config::load(&flags.settings).unwrap().config_service_reporters, networks);
    }

    #[test]
    fn every_mistake_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("coordinator.toml");
        std::fs::write(&file, "config_service_reporters = ['10.0.0.0/8', '10.0.0.1/8']").unwrap();
        let flags = SettingFlags {
            listen: Some("nowhere".into()),
            state_dir: Some("here".into()),
            config_url_base: Some("ftp://x/".into()),
            config: Some(file),
            log_format: Some("xml".into()),
            log_retention_days: Some(0),
            task_retention_days: Some(6),
            running_tasks: Some(0),
            agent_certificate_seconds: Some(9),
            ..SettingFlags::default()
        };
        let told = Config::load(&flags).unwrap_err().to_string();
        for name in [
            "listen",
            "state_dir",
            "config_url_base",
            "config_service_reporters",
            "log_format",
            "log_retention_days",
            "task_retention_days",
            "running_tasks",
            "agent_certificate_seconds",
        ] {
            assert!(told.contains(name), "{name} is not in {told}");
        }
    }
}
