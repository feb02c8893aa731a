//! From the command line to ports that answer, or to the log line that says why not.

use super::{
    Faults, Proxy,
    config::{Config, Refusal},
    log::Log,
    metrics,
    options::Options,
    session, stop,
    version::{self, Version},
};
use nix::sys::signal::Signal;
use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// D2
const DIRECTORIES: [&str; 5] = [".conf", "control-config", "etc", "log", "sharding-config"];
/// D12
const FROM_ENVIRONMENT: [&str; 2] = ["observer_sys_password", "observer_sys_password1"];

const INVALID_ARGUMENT: i32 = -4002;
const INTERNAL: i32 = -4016;
const INVALID_CONFIG: i32 = -4147;

/// What kept it from starting, and the `ret=` that goes with it.
struct Death {
    cause: String,
    code: i32,
}

fn death<T>(cause: impl Into<String>, code: i32) -> Result<T, Death> {
    Err(Death { cause: cause.into(), code })
}

/// Serves until the process is told to end. Returns when it could not start.
pub(super) fn serve(options: &Options, version: Version) {
    // D1, D8
    let Some(root) = root().filter(|root| make_directories(root)) else { return };
    // C12. What the signal does was not looked at: here it ends the program, as it does by itself.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGHUP);
    let log = Log::open(&root, version.rules);
    log.info(&format!("obproxy starts as pid {}", process::id()));
    let prepared = stop::hold_signals()
        .map_err(|error| Death { cause: format!("fail to hold signals: {error}"), code: INTERNAL })
        .and_then(|()| configuration(&root, options, &version));
    let config = match prepared {
        Ok(config) => config,
        Err(Death { cause, code }) => return log.death(&cause, code),
    };
    log.report(&config);
    let faults = Faults::of(&config);
    stop::on_signal(&root, version.rules, &config);
    thread::sleep(Duration::from_millis(faults.slow_start_ms));
    let listeners = match Listeners::open(&config, version.rules, &faults, &log) {
        Ok(listeners) => listeners,
        Err(Death { cause, code }) => return log.death(&cause, code),
    };
    let proxy = Arc::new(Proxy {
        cluster: config.get("rootservice_cluster_name").to_owned(),
        sql_port: config.number("listen_port"),
        config: Mutex::new(config),
        version,
        log,
        faults,
        told_to_exit: AtomicBool::new(false),
        sessions: AtomicU64::new(0),
        connections: AtomicU64::new(0),
        requests: AtomicU64::new(0),
        scrapes: AtomicU64::new(0),
        scraped_bytes: AtomicU64::new(0),
        last_scrape: Mutex::new(None),
    });
    listeners.serve(&proxy);
}

/// D1: silent on what a relative OBPROXY_ROOT does; nothing is made.
fn root() -> Option<PathBuf> {
    match env::var_os("OBPROXY_ROOT") {
        Some(root) => Some(PathBuf::from(root)).filter(|root| root.is_absolute()),
        None => env::current_dir().ok(),
    }
}

fn make_directories(root: &Path) -> bool {
    DIRECTORIES.iter().all(|directory| fs::create_dir_all(root.join(directory)).is_ok())
}

/// D9, D10, D12: stored values, then the environment, then the command line; checked and stored.
fn configuration(root: &Path, options: &Options, version: &Version) -> Result<Config, Death> {
    let mut config = match Config::load(root.join(version.rules.stored), version.rules) {
        Ok(config) => config,
        // Silent; H10 has it for hot restarts.
        Err(error) => return death(format!("fail to load local config: {error}"), INTERNAL),
    };
    let carried = version::library().and_then(|lib| fs::read_to_string(lib.join("standin-faults")).ok());
    if let Err(mistake) = config.carry_faults(carried.as_deref().unwrap_or_default()) {
        return death(mistake, INVALID_CONFIG);
    }
    let environment = FROM_ENVIRONMENT.iter().filter_map(|name| Some(((*name).to_owned(), env::var(name).ok()?)));
    for (name, value) in environment.chain(options.items.iter().cloned()) {
        match config.set_at_start(&name, &value) {
            Ok(()) | Err(Refusal::Unknown) => {} // C14
            Err(Refusal::Unsaved) => return death(format!("fail to execute sql to save {name}"), INTERNAL), // A7
            Err(Refusal::Invalid | Refusal::Level | Refusal::Fixed) => {
                return death(format!("fail to load opt config {name}"), INVALID_CONFIG); // C15
            }
        }
    }
    let (servers, url) = (config.get("rootservice_list"), config.get("obproxy_config_server_url"));
    if servers.is_empty() && url.is_empty() {
        return death("fail to set opt rs list to web rs list", INVALID_CONFIG); // C17
    }
    // C16; S20 lets a bad list in by ALTER, and silent is what the next start says to it.
    if !servers.is_empty() && !servers.split(';').all(|server| server.parse::<SocketAddr>().is_ok()) {
        return death("fail to parse rs list", INVALID_ARGUMENT);
    }
    // Silent: an address that is none ends the start.
    if config.get("local_bound_ip").parse::<IpAddr>().is_err() {
        return death("fail to parse local_bound_ip", INVALID_CONFIG);
    }
    if let Err(error) = config.save() {
        return death(format!("fail to save local config: {error}"), INTERNAL);
    }
    Ok(config)
}

/// L1
struct Listeners {
    sql: TcpListener,
    rpc: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

impl Listeners {
    fn open(config: &Config, rules: &version::Rules, faults: &Faults, log: &Log) -> Result<Self, Death> {
        let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let bound = config.get("local_bound_ip").parse().unwrap_or(everywhere);
        let listen = |ip: IpAddr, port: &str| TcpListener::bind((ip, config.number(port)));
        // L8, L4
        let Ok(sql) = listen(bound, "listen_port") else {
            return death("fail to start mysql accept server", INTERNAL);
        };
        // L2, L5. On which address with local_bound_ip is silent; like L3.
        let rpc = match rules.rpc_port && config.is_true("enable_obproxy_rpc_service") {
            false => None,
            true => match listen(everywhere, "rpc_listen_port") {
                Ok(listener) => Some(listener),
                Err(_) => return death("fail to start rpc accept server", INTERNAL),
            },
        };
        // L3, L6
        let metrics = match config.is_true("enable_prometheus") {
            false => None,
            true => listen(everywhere, "prometheus_listen_port").ok().filter(|_| !faults.no_metrics).or_else(|| {
                log.warning(&format!("fail to init prometheus(ret={INTERNAL})"));
                None
            }),
        };
        if faults.complaint_of_metrics {
            log.warning(&format!("fail to init prometheus(ret={INTERNAL})"));
        }
        Ok(Self { sql, rpc, metrics })
    }

    fn serve(self, proxy: &Arc<Proxy>) {
        proxy.log.info(&format!("obproxy {} serves on port {}", proxy.version.text, proxy.sql_port));
        stop::after_a_while(proxy);
        stop::on_command(Arc::clone(proxy));
        if let Some(listener) = self.rpc {
            // No client of it is played: whoever connects is heard and not answered.
            thread::spawn(move || listener.incoming().flatten().for_each(drop));
        }
        if let Some(listener) = self.metrics {
            let proxy = Arc::clone(proxy);
            thread::spawn(move || metrics::serve(&listener, &proxy));
        }
        for (stream, id) in self.sql.incoming().flatten().zip(1_u32..) {
            let proxy = Arc::clone(proxy);
            thread::spawn(move || {
                proxy.connections.fetch_add(1, Ordering::Relaxed);
                proxy.sessions.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = session::serve(stream, id, &proxy) {
                    proxy.log.info(&format!("session {id} ended: {error}"));
                }
                proxy.sessions.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }
}
