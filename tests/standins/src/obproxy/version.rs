//! Which obproxy is played, and all that depends on it.
//!
//! The ids in comments here and elsewhere in this module are those of `docs/facts/obproxy.md`. What was measured
//! is 4.3; nothing was measured of the versions before 4, and where the facts are silent on them they behave like 4.3.

use std::{env, fs, path::PathBuf};

/// A3: the hash that the program holds, of a text that nobody knows.
pub(super) const SYS_PASSWORD: &str = "f0455d5edb4833fa2e91762e71b61bc35d45cf0b";

/// What one line of versions does in its own way.
#[derive(Debug)]
pub(super) struct Rules {
    /// The stored configuration, below the root.
    pub(super) stored: &'static str,
    /// Items that are not known.
    pub(super) unknown_items: &'static [&'static str],
    /// Defaults that differ from those of the table of items.
    pub(super) defaults: &'static [(&'static str, &'static str)],
    pub(super) rpc_port: bool,
    /// `SHOW PROXYCONFIG` has so many of its columns.
    pub(super) config_columns: usize,
    /// `SHOW PROXYCONFIG DIFF` and `ALL`.
    pub(super) show_diff: bool,
    /// Code and text for an unknown item in ALTER.
    pub(super) unknown_item: (u16, &'static str),
    /// How the log calls what ends the program, and what does not.
    pub(super) error_level: &'static str,
    pub(super) warning_level: &'static str,
    pub(super) log_levels: &'static [&'static str],
    /// Files in `log` beside `obproxy.log`, without the prefix `obproxy_`.
    pub(super) more_logs: &'static [&'static str],
}

/// As measured.
static FROM_4_3: Rules = Rules {
    stored: "etc/proxyconfig_v1.db", // D3
    unknown_items: &[],
    defaults: &[],
    rpc_port: true,                                // L1
    config_columns: 7,                             // S1
    show_diff: true,                               // S7
    unknown_item: (5099, "System config unknown"), // S16
    error_level: "EDIAG",                          // X3
    warning_level: "WDIAG",                        // X3
    log_levels: &["DEBUG", "TRACE", "INFO", "WDIAG", "EDIAG", "WARN", "ERROR"],
    more_logs: &["diagnosis", "digest", "error", "limit", "pool", "pool_stat", "slow", "stat", "trace", "xflush"], // D6
};

/// As documented of 4.1 and 4.2: without the port for RPC (V1).
static FROM_4_1: Rules = Rules { unknown_items: BEFORE_4.unknown_items, rpc_port: false, ..FROM_4_3 };

/// As documented of 4.0: stored in the older file too (V2).
static FROM_4_0: Rules = Rules { stored: BEFORE_4.stored, ..FROM_4_1 };

/// As documented of 1.9.
static BEFORE_4: Rules = Rules {
    stored: "etc/obproxy_config.bin",                                    // V2
    unknown_items: &["rpc_listen_port", "enable_obproxy_rpc_service"],   // V1
    defaults: &[("obproxy_sys_password", ""), ("syslog_level", "WARN")], // V5, V4
    rpc_port: false,                                                     // V1
    config_columns: 5,                                                   // V3
    show_diff: false,                                                    // silent: not offered
    unknown_item: (1193, "Unknown system variable"),                     // V6
    error_level: "ERROR",                                                // V4
    warning_level: "WARN",                                               // V4
    log_levels: &["DEBUG", "TRACE", "INFO", "WARN", "ERROR"],
    more_logs: &[],
};

impl Rules {
    /// The built-in value where it depends on the version.
    pub(super) fn default_of(&self, name: &str) -> Option<&'static str> {
        self.defaults.iter().find(|(item, _)| *item == name).map(|(_, value)| *value)
    }
}

/// `4.3.1.0-1.el8`, and how it behaves.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) text: String,
    pub(super) rules: &'static Rules,
}

impl Version {
    /// The version that the package around this program says it carries.
    pub(super) fn installed() -> Self {
        let told = library().and_then(|lib| fs::read_to_string(lib.join("standin-version")).ok());
        Self::of(told.as_deref().unwrap_or(crate::package::DEFAULT_VERSION).trim())
    }

    pub(super) fn of(text: &str) -> Self {
        let mut numbers = text.split('.').map(|part| part.parse::<u32>().unwrap_or_default());
        let rules = match (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) {
            (..=3, _) => &BEFORE_4,
            (4, 0) => &FROM_4_0,
            (4, 1 | 2) => &FROM_4_1,
            (4.., _) => &FROM_4_3,
        };
        Self { text: text.to_owned(), rules }
    }

    pub(super) fn number(&self) -> &str {
        self.text.split_once('-').map_or(self.text.as_str(), |(number, _)| number)
    }

    pub(super) fn release(&self) -> &str {
        self.text.split_once('-').map_or("", |(_, release)| release)
    }
}

/// `lib`, beside the `bin` that this program lies in.
pub(super) fn library() -> Option<PathBuf> {
    Some(env::current_exe().ok()?.parent()?.parent()?.join("lib"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_go_by_the_first_two_numbers() {
        for (text, rpc_port, stored) in [
            ("1.9.1.1-1919579", false, "etc/obproxy_config.bin"),
            ("3.2.0-1", false, "etc/obproxy_config.bin"),
            ("4.0.0-1", false, "etc/obproxy_config.bin"),
            ("4.1.0.0-1.el8", false, "etc/proxyconfig_v1.db"),
            ("4.2.3.0-3.el8", false, "etc/proxyconfig_v1.db"),
            ("4.3.1.0-1.el8", true, "etc/proxyconfig_v1.db"),
            ("5.0-1", true, "etc/proxyconfig_v1.db"),
        ] {
            let rules = Version::of(text).rules;
            assert_eq!((rules.rpc_port, rules.stored), (rpc_port, stored), "{text}");
            assert_eq!(rules.unknown_items.contains(&"rpc_listen_port"), !rpc_port, "{text}");
        }
        let version = Version::of("1.9.1.1-1919579");
        assert_eq!((version.number(), version.release()), ("1.9.1.1", "1919579"));
        assert_eq!(version.rules.default_of("obproxy_sys_password"), Some(""));
    }
}
