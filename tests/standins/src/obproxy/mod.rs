//! Stands in for obproxy: its command line, directories, users, configuration statements and metrics.
//!
//! It keeps to `docs/facts/obproxy.md`; comments name the ids of the facts. It forwards nothing to any observer, and it
//! has no hot restart. Faults that a test wants are configuration items whose names begin with `standin_`; they are
//! stored like others. A package can carry faults of its own in `lib/standin-faults`.

mod alter;
mod answer;
mod config;
mod items;
mod kind;
mod log;
mod login;
mod metrics;
mod options;
mod quoting;
mod session;
mod show;
mod sql;
mod start;
mod stop;
mod version;

use config::Config;
use log::Log;
use options::{Action, Mistake, Options};
use version::Version;

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64},
    },
    thread,
    time::{Duration, Instant},
};

/// What the sessions share.
struct Proxy {
    config: Mutex<Config>,
    version: Version,
    log: Log,
    faults: Faults,
    /// C21: `-c`, as it was at the start.
    cluster: String,
    sql_port: u16,
    told_to_exit: AtomicBool,
    sessions: AtomicU64,
    connections: AtomicU64,
    requests: AtomicU64,
    scrapes: AtomicU64,
    scraped_bytes: AtomicU64,
    last_scrape: Mutex<Option<Instant>>,
}

impl Proxy {
    /// Runs `change` on the configuration; a session that panicked leaves it as it was.
    fn with_config<T>(&self, change: impl FnOnce(&mut Config) -> T) -> T {
        change(&mut self.config.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

/// What a test wants to go wrong, as it was at the start.
struct Faults {
    /// It says that it has no metrics, and has them.
    complaint_of_metrics: bool,
    slow_start_ms: u64,
    die_after_ms: u64,
    exit_code: i32,
    no_metrics: bool,
    bad_metrics: bool,
    refuse_logins: bool,
    /// ALTER of the administrator's password.
    refuse_sys_password: bool,
    no_backslash_escapes: bool,
    tenant_traffic: bool,
}

impl Faults {
    fn of(config: &Config) -> Self {
        let switch = |name| config.number::<u8>(name) == 1;
        Self {
            complaint_of_metrics: switch("standin_complaint_of_metrics"),
            slow_start_ms: config.number("standin_slow_start_ms"),
            die_after_ms: config.number("standin_die_after_ms"),
            exit_code: config.number("standin_exit_code"),
            no_metrics: switch("standin_no_metrics"),
            bad_metrics: switch("standin_bad_metrics"),
            refuse_logins: switch("standin_refuse_logins"),
            refuse_sys_password: switch("standin_refuse_sys_password"),
            no_backslash_escapes: switch("standin_no_backslash_escapes"),
            tenant_traffic: switch("standin_tenant_traffic"),
        }
    }
}

/// The whole program. `arguments` begins with its name.
pub fn run(arguments: &[String]) -> ExitCode {
    let version = Version::installed();
    // C1
    told(&arguments.join(" "));
    let options = match Options::parse(arguments.iter().skip(1).cloned(), version.rules) {
        Ok(options) => options,
        Err(Mistake(code)) => {
            told(&format!("fail to parse cmd line, ret={code}\n{}", options::usage(version.rules)));
            return ExitCode::SUCCESS; // C3
        }
    };
    match options.action {
        Action::Help => told(&options::usage(version.rules)), // C2
        Action::Version => told(&version_text(&version)),     // C2, C8
        Action::Release if io::stdout().is_terminal() => {
            // C9: anything but a terminal gets nothing.
            let _ = writeln!(io::stdout(), "{}.", version.release());
        }
        Action::Release => {}
        Action::Dump => {
            let _ = fs::write("obproxy_config_update.sql", ""); // C13; what it holds was not looked at
        }
        Action::Serve => {
            // C10: before the first thread, and the working directory stays.
            let started = nix::unistd::getpid();
            if !options.foreground && nix::unistd::daemon(true, false).is_err() {
                return ExitCode::SUCCESS;
            }
            // A daemon outlives the process that started it (C10), so it asks for a signal at a parent's end (C12) only when
            // that one is gone.
            while nix::unistd::getppid() == started {
                thread::sleep(Duration::from_millis(1));
            }
            start::serve(&options, version);
        }
    }
    ExitCode::SUCCESS // C3
}

/// Nobody may be left to read it.
fn told(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn version_text(version: &Version) -> String {
    format!(
        "obproxy (OceanBase {} {})\nREVISION: 1-local-standin\nBUILD_TIME: Nov 21 2026 12:04:12\nBUILD_FLAGS: stand-in",
        version.number(),
        version.release()
    )
}
