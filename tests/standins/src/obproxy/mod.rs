//! Stands in for obproxy 1.9: its command line, directories, users, configuration statements and metrics.
//!
//! It forwards nothing to any observer. Faults that a test wants are asked for with `-o standin_...` items,
//! which are never kept: `standin_slow_start_ms`, `standin_die_after_ms` with `standin_exit_code`,
//! `standin_no_metrics=1` and `standin_bad_metrics=1`.

mod config;
mod metrics;
mod options;
mod session;
mod sql;

use config::Config;
pub use options::{Options, USAGE};

use std::{
    collections::HashMap,
    env, fs, io,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Directories that obproxy makes below its root.
const DIRECTORIES: [&str; 5] = ["etc", "log", ".conf", "control-config", "sharding-config"];

/// What the sessions share.
struct Proxy {
    config: Mutex<Config>,
    version: String,
    root: PathBuf,
    sessions: AtomicU64,
    connections: AtomicU64,
    requests: AtomicU64,
}

impl Proxy {
    fn log(&self, line: &str) {
        append(&self.root, line);
    }

    /// Runs `change` on the configuration; a session that panicked leaves it as it was.
    fn with_config<T>(&self, change: impl FnOnce(&mut Config) -> T) -> T {
        change(&mut self.config.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

/// Appends to `log/obproxy.log`; a log that cannot be written stops nothing.
fn append(root: &Path, line: &str) {
    let file = fs::OpenOptions::new().create(true).append(true).open(root.join("log/obproxy.log"));
    if let Ok(mut file) = file {
        let _ = writeln!(file, "{line}");
    }
}

/// `name-version` as `SHOW PROXYINFO BINARY` and `-V` tell it. The package says which version it carries.
pub fn version() -> String {
    let told = env::current_exe().ok().and_then(|exe| {
        let file = exe.parent()?.parent()?.join("lib/standin-version");
        fs::read_to_string(file).ok()
    });
    told.map_or_else(|| crate::package::DEFAULT_VERSION.to_owned(), |text| text.trim().to_owned())
}

/// Serves until the process is told to end. Returns only what kept it from starting.
pub fn run(options: Options) -> io::Result<()> {
    let root = match env::var_os("OBPROXY_ROOT") {
        Some(root) => PathBuf::from(root),
        None => env::current_dir()?,
    };
    for directory in DIRECTORIES {
        fs::create_dir_all(root.join(directory))?;
    }
    append(&root, &format!("obproxy starts as pid {}", process::id()));
    let mut config = Config::load(root.join("etc/obproxy_config.bin"))?;
    for name in ["observer_sys_password", "observer_sys_password1"] {
        if let Ok(hash) = env::var(name) {
            config.set_at_start(name, &hash)?;
        }
    }
    for (name, value) in &options.items {
        config.set_at_start(name, value)?;
    }
    config.check()?;
    config.save()?;

    let faults = Faults(&options.faults);
    thread::sleep(Duration::from_millis(faults.number("standin_slow_start_ms").unwrap_or(0)));

    let ip = config.get("local_bound_ip").parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let sql = listen(ip, config.port("listen_port")?)?;
    let exporter = match faults.number("standin_no_metrics") {
        Some(1) => None,
        _ => Some(listen(ip, config.port("prometheus_listen_port")?)?),
    };
    let proxy = Arc::new(Proxy {
        config: Mutex::new(config),
        version: version(),
        root,
        sessions: AtomicU64::new(0),
        connections: AtomicU64::new(0),
        requests: AtomicU64::new(0),
    });
    proxy.log(&format!("obproxy {} serves {}", proxy.version, sql.local_addr()?));

    if let Some(delay) = faults.number("standin_die_after_ms") {
        let code = faults.number("standin_exit_code").and_then(|code| i32::try_from(code).ok()).unwrap_or(1);
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(delay));
            process::exit(code);
        });
    }
    if let Some(listener) = exporter {
        let proxy = Arc::clone(&proxy);
        let broken = faults.number("standin_bad_metrics") == Some(1);
        thread::spawn(move || metrics::serve(&listener, &proxy, broken));
    }
    for (stream, id) in sql.incoming().flatten().zip(1_u32..) {
        let proxy = Arc::clone(&proxy);
        thread::spawn(move || {
            proxy.connections.fetch_add(1, Ordering::Relaxed);
            proxy.sessions.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = session::serve(stream, id, &proxy) {
                proxy.log(&format!("session {id} ended: {error}"));
            }
            proxy.sessions.fetch_sub(1, Ordering::Relaxed);
        });
    }
    Ok(())
}

fn listen(ip: IpAddr, port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((ip, port))
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {ip}:{port}: {error}")))
}

struct Faults<'a>(&'a HashMap<String, String>);

impl Faults<'_> {
    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.parse().ok()
    }
}
