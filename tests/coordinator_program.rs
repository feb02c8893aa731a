//! The program `oblet-coordinator` as systemd sees it: readiness, watchdog, reload, stop.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::{Child, ChildStderr, Command, Stdio},
    time::Duration,
};

#[path = "support/flood.rs"]
mod flood;

struct Started {
    directory: tempfile::TempDir,
    manager: UnixDatagram,
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Drop for Started {
    fn drop(&mut self) {
        // One that was told to stop has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Started {
    fn new(config: &str) -> Self {
        Self::with_files(config, None)
    }

    /// With a hard limit of open files, and a soft one below it.
    fn with_files(config: &str, files: Option<u64>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let notify = directory.path().join("notify");
        let manager = UnixDatagram::bind(&notify).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let file = directory.path().join("coordinator.toml");
        std::fs::write(&file, config).unwrap();
        let mut child = flood::limited(env!("CARGO_BIN_EXE_oblet-coordinator"), files)
            .env("NOTIFY_SOCKET", notify)
            .env("WATCHDOG_USEC", if files.is_some() { "60000000" } else { "1000000" })
            .env("OBLET_COORDINATOR_STATE_DIR", directory.path().join("state"))
            .env("OBLET_COORDINATOR_LISTEN", "127.0.0.1:0")
            .env("OBLET_COORDINATOR_CONFIG_SERVICE_LISTEN", "127.0.0.2:0")
            .arg("--config")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { directory, manager, child, log }
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("coordinator.toml")
    }

    /// The next news to the service manager that contain `words`.
    fn news(&self, words: &str) -> String {
        loop {
            let mut buffer = [0; 4096];
            let length = self.manager.recv(&mut buffer).unwrap();
            let news = String::from_utf8_lossy(buffer.get(..length).unwrap()).into_owned();
            if news.contains(words) {
                return news;
            }
        }
    }

    /// The next line of the log that contains `words`.
    fn log_until(&mut self, words: &str) -> String {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "the coordinator ended and did not say: {words}");
        }
        line
    }

    fn signal(&self, which: Signal) {
        signal::kill(Pid::from_raw(self.child.id().cast_signed()), which).unwrap();
    }
}

#[test]
fn the_service_manager_hears_of_every_turn() {
    let mut started = Started::new("");
    let line = started.log_until("serving");
    let address = line.split_once("address=").unwrap().1.split_whitespace().next().unwrap().to_owned();
    started.news("READY=1");
    TcpStream::connect(address).unwrap();
    // Fed again and again while nothing is to be done.
    for _ in 0..3 {
        started.news("WATCHDOG=1");
    }
    started.signal(Signal::SIGTERM);
    started.news("STOPPING=1");
    let mut rest = String::new();
    started.log.read_to_string(&mut rest).unwrap();
    assert_eq!(started.child.wait().unwrap().code(), Some(0), "{rest}");
}

#[test]
fn a_reload_renews_certificates_and_a_wrong_file_changes_nothing() {
    let mut started = Started::new("grace_seconds = 10");
    started.news("READY=1");
    let certificate = started.directory.path().join("state/tls/coordinator.pem");
    let first = std::fs::read(&certificate).unwrap();

    std::fs::write(started.config(), "grace_seconds = 5\nconfig_url_base = 'http://10.1.1.1'").unwrap();
    started.signal(Signal::SIGHUP);
    assert!(started.news("RELOADING=1").contains("MONOTONIC_USEC="));
    started.news("READY=1");
    let line = started.log_until("needs a restart");
    assert!(line.contains("config_url_base") && !line.contains("grace_seconds"), "{line}");
    let second = std::fs::read(&certificate).unwrap();
    assert_ne!(first, second);

    std::fs::write(started.config(), "log_filter = 'warn'\nlog_retention_days = 0").unwrap();
    started.signal(Signal::SIGHUP);
    let line = started.log_until("nothing is reloaded");
    assert!(line.contains("log_retention_days"), "{line}");
    assert_eq!(second, std::fs::read(&certificate).unwrap());
    started.signal(Signal::SIGTERM);
    // At level info, so the filter of the refused file is not in force.
    started.log_until("stopping");
    assert_eq!(started.child.wait().unwrap().code(), Some(0));
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oblet-coordinator"));
    let output = command.env_clear().args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_right_configuration_is_said_to_be_right() {
    let (code, said, complaints) = run(&["--check-config", "--log-filter", "warn"]);
    assert_eq!((code, complaints.as_str()), (Some(0), ""));
    assert!(said.contains("The configuration is valid. Checked: all settings, from no file"), "{said}");
}

#[test]
fn a_certificate_for_an_agent_needs_the_address_of_its_host() {
    let directory = tempfile::tempdir().unwrap();
    let (state, out) = (directory.path().join("state"), directory.path().join("out"));
    let certificate = |role: &str| {
        let directories = ["--state-dir", state.to_str().unwrap(), "--out", out.to_str().unwrap()];
        run(&[&["certificate", "--role", role, "--name", "db1"][..], &directories].concat())
    };
    let (code, _, complaint) = certificate("agent");
    assert!(code == Some(64) && complaint.contains("add --address IP"), "{code:?} {complaint}");
    let two = ["--address", "192.0.2.1", "--address", "192.0.2.2", "--state-dir", state.to_str().unwrap()];
    let two = [&["certificate", "--role", "agent", "--name", "db1", "--out", out.to_str().unwrap()][..], &two].concat();
    let (code, _, complaint) = run(&two);
    assert!(code == Some(64) && complaint.contains("for one host"), "{code:?} {complaint}");
    assert!(!state.exists() && !out.exists());
    // Who calls agents is recognised by name alone.
    assert_eq!(certificate("coordinator").0, Some(0));
}

/// Clients of OCP know plain HTTP only; it has to be asked for, and a port alone is one of the loopback interface.
#[test]
fn the_api_is_served_without_tls_where_that_is_asked_for() {
    let mut started = Started::new("http_listen = '0'\nadvertise_addresses = ['coordinator.example', '127.0.0.1']");
    let line = started.log_until("without TLS");
    let address = line.split_once("address=").unwrap().1.split_whitespace().next().unwrap().to_owned();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    started.news("READY=1");
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(b"GET /api/v2/time HTTP/1.0\r\nHost: coordinator.example\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_listener_without_tls_that_cannot_be_is_refused() {
    for (config, told) in [
        ("http_listen = 'localhost'", "neither an address with a port nor a port"),
        ("http_listen = '127.0.0.1:9'\nlisten = '127.0.0.1:9'", "is the address of another service"),
        ("advertise_addresses = ['https://coordinator.example']", "neither an IP address nor a DNS name"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("coordinator.toml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_oblet-coordinator"));
        let checked = command.env_clear().arg("--check-config").arg("--config").arg(&file).output().unwrap();
        let text = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert_eq!(checked.status.code(), Some(78), "{config}: {text}");
        assert!(text.contains(told), "{text}");
    }
}

/// What a program tells as `name=value` in a line of its log.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    line.split_once(&format!("{name}=")).unwrap().1.split_whitespace().next().unwrap()
}

/// Requests of an operator, over a new connection each.
struct Operator {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    address: SocketAddr,
    password: String,
}

impl Operator {
    fn of(started: &mut Started) -> Self {
        let told = started.log_until("the password of user admin is");
        let password = told.trim_end().rsplit_once(' ').unwrap().1.to_owned();
        let address = field(&started.log_until("serving"), "address").parse().unwrap();
        let ca = std::fs::read(started.directory.path().join("state/tls/ca.pem")).unwrap();
        oblet::tls::install_crypto_provider();
        let client = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
            .resolve("oblet-coordinator", address)
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, client, address, password }
    }

    fn asks(&self) -> Result<u16, reqwest::Error> {
        let url = format!("https://oblet-coordinator:{}/api/v2/compute/hosts", self.address.port());
        let request = self.client.get(url).basic_auth("admin", Some(&self.password));
        self.runtime.block_on(async { request.send().await }).map(|answer| answer.status().as_u16())
    }
}

/// It listens at an address of its own, and the log does not tell its port.
fn config_service(pid: u32) -> SocketAddr {
    let process = procfs::process::Process::new(pid.cast_signed()).unwrap();
    let sockets: Vec<u64> = { process.fd().unwrap() }
        .filter_map(|file| match file.ok()?.target {
            procfs::process::FDTarget::Socket(inode) => Some(inode),
            _ => None,
        })
        .collect();
    let listens = |entry: &procfs::net::TcpNetEntry| {
        entry.state == procfs::net::TcpState::Listen
            && entry.local_address.ip() == Ipv4Addr::new(127, 0, 0, 2)
            && sockets.contains(&entry.inode)
    };
    procfs::net::tcp().unwrap().into_iter().find(listens).unwrap().local_address
}

/// The answer to a report, which comes from 127.0.0.1.
fn report(started: &Started) -> String {
    let mut observer = TcpStream::connect(config_service(started.child.id())).unwrap();
    observer.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let body = r#"{"ObCluster": "ob", "ObClusterId": 1, "Type": "PRIMARY", "timestamp": 1, "RsList": [{"address": "127.0.0.1:2882", "role": "LEADER", "sql_port": 2881}]}"#;
    let head = "POST /services?Action=ObRootServiceInfo&version=2 HTTP/1.1\r\nHost: x\r\nConnection: close";
    write!(observer, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    observer.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    answer
}

#[test]
fn a_report_counts_by_the_address_that_it_comes_from() {
    let stranger = Started::new("");
    stranger.news("READY=1");
    let answer = report(&stranger);
    assert!(answer.contains("127.0.0.1 may not report"), "{answer}");
    let named = Started::new("config_service_reporters = ['127.0.0.0/8']");
    named.news("READY=1");
    let answer = report(&named);
    assert!(answer.contains("no proxy cluster links to"), "{answer}");
}

/// The watchdog is fed only while the HTTPS server lets in its own program.
#[test]
fn twenty_thousand_sockets_cost_a_coordinator_neither_its_calls_nor_its_watchdog_nor_its_memory() {
    let mut started = Started::new("");
    let operator = Operator::of(&mut started);
    started.news("READY=1");
    assert_eq!(operator.asks().unwrap(), 200);
    let before = flood::resident_mib(started.child.id());
    for address in [operator.address, config_service(started.child.id())] {
        let strangers = flood::flood(address);
        assert_eq!(operator.asks().unwrap(), 200);
        let mut proxy = TcpStream::connect(config_service(started.child.id())).unwrap();
        proxy.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        proxy
            .write_all(b"GET /services?Action=GetObProxyConfig HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        proxy.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
        // What was said while they came.
        started.manager.set_nonblocking(true).unwrap();
        while started.manager.recv(&mut [0; 4096]).is_ok() {}
        started.manager.set_nonblocking(false).unwrap();
        for _ in 0..3 {
            started.news("WATCHDOG=1");
        }
        let grown = flood::resident_mib(started.child.id()).saturating_sub(before);
        assert!(grown < 128, "{} connections at {address} cost {grown} MiB", strangers.len());
    }
}

#[test]
fn strangers_at_a_coordinator_with_few_descriptors_keep_the_operator_from_nothing() {
    let mut started = Started::with_files("", Some(256));
    let operator = Operator::of(&mut started);
    started.news("READY=1");
    let pid = started.child.id();
    let mut strangers = flood::connect(config_service(pid), 500);
    strangers.extend(flood::connect(operator.address, 200));
    // Who comes in the midst of so many may be shown out with them, and is let in when he asks again.
    flood::wait_for(|| operator.asks().is_ok_and(|status| status == 200));
}

#[test]
fn a_coordinator_without_a_free_descriptor_waits_and_goes_on_when_there_is_one() {
    let mut started = Started::with_files("", Some(1000));
    let operator = Operator::of(&mut started);
    started.news("READY=1");
    let pid = started.child.id();
    flood::leave_descriptors(pid, 8);
    let strangers = flood::connect(config_service(pid), 30);
    flood::wait_for(|| flood::free_descriptors(pid) == 0);
    assert!(flood::spent_in(pid, Duration::from_secs(2)) < Duration::from_millis(600), "it does not pause");
    assert!(started.child.try_wait().unwrap().is_none(), "the coordinator has ended");
    drop(strangers);
    flood::wait_for(|| operator.asks().is_ok_and(|status| status == 200));
}

/// A shell starts programs with a soft limit of 1024, which strangers with sockets use up.
#[test]
fn a_coordinator_may_have_as_many_files_as_its_hard_limit_allows() {
    let started = Started::with_files("", Some(3000));
    started.news("READY=1");
    assert_eq!(flood::limit_of_files(started.child.id()), (3000, 3000));
}
