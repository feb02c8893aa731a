//! Configuration items: defaults, rules, and the local file that survives a restart.

use crate::mysql;
use std::{collections::BTreeMap, fs, io, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::PathBuf};

/// A configuration item as obproxy describes it.
pub(super) struct Item {
    pub(super) name: &'static str,
    pub(super) default: &'static str,
    pub(super) need_reboot: bool,
}

const fn item(name: &'static str, default: &'static str) -> Item {
    Item { name, default, need_reboot: false }
}

const fn reboot(name: &'static str, default: &'static str) -> Item {
    Item { name, default, need_reboot: true }
}

/// Items with the defaults of `obutils/ob_proxy_config.h`.
pub(super) const ITEMS: &[Item] = &[
    reboot("app_name", "undefined"),
    reboot("automatic_match_work_thread", "True"),
    item("client_max_connections", "8192"),
    item("delay_exit_time", "100ms"),
    item("enable_cached_server", "True"),
    item("enable_client_connection_lru_disconnect", "False"),
    item("enable_cluster_checkout", "True"),
    item("enable_compression_protocol", "True"),
    item("enable_extra_prometheus_metric", "False"),
    item("enable_get_rslist_remote", "False"),
    reboot("enable_metadb_used", "True"),
    item("enable_prometheus", "True"),
    item("enable_proxy_scramble", "False"),
    item("enable_qos", "False"),
    item("enable_strict_kernel_release", "True"),
    item("hot_upgrade_exit_timeout", "30s"),
    item("hot_upgrade_failure_retries", "5"),
    item("hot_upgrade_rollback_timeout", "24h"),
    item("inspector_password", ""),
    reboot("listen_port", "6688"),
    reboot("local_bound_ip", "0.0.0.0"),
    item("log_dir_size_threshold", "64GB"),
    item("max_connections", "60000"),
    item("monitor_cost_ms_unit", "False"),
    item("monitor_log_level", "INFO"),
    reboot("obproxy_config_server_url", ""),
    item("obproxy_sys_password", ""),
    item("observer_sys_password", ""),
    item("observer_sys_password1", ""),
    item("prometheus_cost_ms_unit", "False"),
    reboot("prometheus_listen_port", "2884"),
    item("prometheus_sync_interval", "1m"),
    reboot("proxy_id", "0"),
    item("proxy_local_cmd", "0"),
    item("proxy_mem_limited", "2G"),
    reboot("proxy_service_mode", "server"),
    item("query_digest_time_threshold", "100ms"),
    reboot("rootservice_cluster_name", "undefined"),
    reboot("rootservice_list", ""),
    reboot("rpc_listen_port", "2885"),
    item("server_detect_mode", "1"),
    item("skip_proxy_sys_private_check", "False"),
    item("skip_proxyro_check", "False"),
    item("syslog_level", "WDIAG"),
    reboot("work_thread_num", "128"),
    item("xflush_log_level", "INFO"),
];

const PASSWORDS: [&str; 4] =
    ["obproxy_sys_password", "inspector_password", "observer_sys_password", "observer_sys_password1"];

/// Values that differ from the defaults.
pub(super) struct Config {
    file: PathBuf,
    values: BTreeMap<String, String>,
}

impl Config {
    /// Reads the file, one `name=value` per line; a file that is not there is an empty one.
    pub(super) fn load(file: PathBuf) -> io::Result<Self> {
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Self { file, values: text.lines().filter_map(pair).collect() })
    }

    /// Replaces the file by rename; it holds password hashes, hence the mode.
    pub(super) fn save(&self) -> io::Result<()> {
        let beside = self.file.with_extension("tmp");
        let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
        for (name, value) in &self.values {
            writeln!(file, "{name}={value}")?;
        }
        file.sync_all()?;
        fs::rename(&beside, &self.file)
    }

    pub(super) fn get(&self, name: &str) -> &str {
        let default = || ITEMS.iter().find(|item| item.name == name).map_or("", |item| item.default);
        self.values.get(name).map_or_else(default, String::as_str)
    }

    /// A port in the range that obproxy's own command line accepts.
    pub(super) fn port(&self, name: &str) -> io::Result<u16> {
        let value = self.get(name);
        let port = value.parse().ok().filter(|&port: &u16| port > 1024);
        port.ok_or_else(|| invalid(format!("{name} {value:?} is not between 1025 and 65535")))
    }

    /// An item of the command line or of the environment. A password is given as its SHA-1, never in clear.
    pub(super) fn set_at_start(&mut self, name: &str, value: &str) -> io::Result<()> {
        if !known(name) {
            return Err(invalid(format!("no such config item: {name}")));
        }
        let is_hash = value.is_empty() || (value.len() == 40 && value.chars().all(|c| c.is_ascii_hexdigit()));
        if PASSWORDS.contains(&name) && !is_hash {
            return Err(invalid(format!("{name} has to be given as a SHA-1 in hexadecimal")));
        }
        self.values.insert(name.to_owned(), normal(name, value));
        Ok(())
    }

    /// An item of `ALTER PROXYCONFIG SET`. A password comes in clear and is kept as its SHA-1.
    pub(super) fn alter(&mut self, name: &str, value: &str) {
        let hidden = PASSWORDS.contains(&name) && !value.is_empty();
        let kept = if hidden { mysql::hex(&mysql::sha1(&[value.as_bytes()])) } else { normal(name, value) };
        self.values.insert(name.to_owned(), kept);
    }

    /// Ports are in range and there is one source of clusters.
    pub(super) fn check(&self) -> io::Result<()> {
        for name in ["listen_port", "prometheus_listen_port", "rpc_listen_port"] {
            self.port(name)?;
        }
        if self.get("rootservice_list").is_empty() && self.get("obproxy_config_server_url").is_empty() {
            return Err(invalid("neither rootservice_list nor obproxy_config_server_url is given"));
        }
        Ok(())
    }
}

/// obproxy shows a switch as `True` or `False`, however it was set.
fn normal(name: &str, value: &str) -> String {
    let switch = ITEMS.iter().any(|item| item.name == name && matches!(item.default, "True" | "False"));
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" if switch => "True".to_owned(),
        "false" | "0" if switch => "False".to_owned(),
        _ => value.to_owned(),
    }
}

pub(super) fn known(name: &str) -> bool {
    ITEMS.iter().any(|item| item.name == name)
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message.into())
}
