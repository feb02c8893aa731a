//! The program `oblet-agent` as systemd sees it: arguments, exit codes, signals.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use nix::{sys::signal, unistd::Pid};
use oblet::{
    coordinator::agents::{AgentAddress, AgentPool, CallError},
    rpc::v1::DescribeHostResponse,
    tls::{CertificateAuthority, Role, install_crypto_provider},
};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::{fs::MetadataExt as _, net::UnixDatagram},
    path::Path,
    process::{Child, ChildStderr, Command, Output, Stdio},
    time::Duration,
};

#[path = "support/skip.rs"]
mod skip;

#[path = "support/flood.rs"]
mod flood;

struct Lab {
    directory: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::load_or_create(directory.path()).unwrap();
        let addresses = [Ipv4Addr::LOCALHOST.into()];
        authority.issue(Role::Agent, "agent", &addresses).unwrap().write(directory.path(), "agent").unwrap();
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn agent(&self, arguments: &[&str]) -> Command {
        self.agent_with_files(arguments, None)
    }

    /// With a hard limit of open files, and a soft one below it.
    fn agent_with_files(&self, arguments: &[&str], files: Option<u64>) -> Command {
        let mut command = flood::limited(env!("CARGO_BIN_EXE_oblet-agent"), files);
        command
            .env("OBLET_AGENT_STATE_DIR", self.path().join("state"))
            .env("OBLET_AGENT_ROOT_DIR", self.path().join("root"))
            .env("OBLET_AGENT_TLS_CA", self.path().join("ca.pem"))
            .env("OBLET_AGENT_TLS_CERTIFICATE", self.path().join("agent.pem"))
            .env("OBLET_AGENT_TLS_KEY", self.path().join("agent.key"))
            .env("OBLET_AGENT_LISTEN", "127.0.0.1:0")
            .env("OBLET_AGENT_METRICS_LISTEN", "127.0.0.1:0")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let Output { status, stderr, .. } = self.agent(arguments).output().unwrap();
        (status.code().unwrap(), String::from_utf8(stderr).unwrap())
    }

    fn start(&self) -> Started {
        self.start_with(&mut self.agent(&[]))
    }

    fn start_with(&self, command: &mut Command) -> Started {
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut started = Started { child, address: String::new(), log };
        let line = started.log_until("the agent is ready");
        started.address = line.split_once("address=").unwrap().1.trim().to_owned();
        started
    }

    /// Asks the agent as a coordinator of `authority` does.
    fn is_let_in(&self, authority: &CertificateAuthority, started: &Started) -> bool {
        self.described(authority, started).is_ok()
    }

    fn described(
        &self,
        authority: &CertificateAuthority,
        started: &Started,
    ) -> Result<DescribeHostResponse, CallError> {
        install_crypto_provider();
        let caller = authority.issue(Role::Coordinator, "coordinator", &[]).unwrap().identity(authority);
        let address = AgentAddress(started.address.parse().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let call = async { AgentPool::new(&caller).unwrap().agent(address).describe_host().await };
        runtime.block_on(call)
    }
}

struct Started {
    child: Child,
    address: String,
    log: BufReader<ChildStderr>,
}

/// A test that fails leaves nothing behind.
impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Started {
    fn signal(&self, which: signal::Signal) {
        signal::kill(Pid::from_raw(self.child.id().cast_signed()), which).unwrap();
    }

    /// The next line of the log that contains `words`.
    fn log_until(&mut self, words: &str) -> String {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "the agent ended and did not say: {words}");
        }
        line
    }

    fn reload(&mut self, words: &str) -> String {
        self.signal(signal::Signal::SIGHUP);
        self.log_until(words)
    }

    fn stop(mut self, by: signal::Signal) -> (Option<i32>, String) {
        self.signal(by);
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

#[test]
fn a_wrong_command_line_exits_64() {
    let (code, told) = Lab::new().run(&["--lisen", "x"]);
    assert_eq!(code, 64);
    assert!(told.contains("--lisen"), "{told}");
}

#[test]
fn a_wrong_configuration_exits_78_and_names_every_mistake() {
    let lab = Lab::new();
    std::fs::remove_file(lab.path().join("agent.key")).unwrap();
    let (code, told) = lab.run(&["--run-path", "here", "--retention-days", "0", "--check-config"]);
    assert_eq!(code, 78);
    for name in ["run_path", "retention_days", "agent.key"] {
        assert!(told.contains(name), "{name} is not in {told}");
    }
    assert!(!lab.path().join("state").exists());
}

#[test]
fn a_right_configuration_is_said_to_be_right() {
    let lab = Lab::new();
    let output = lab.agent(&["--check-config"]).stdout(Stdio::piped()).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && output.stderr.is_empty() && told.contains("Checked: all settings"), "{told}");
    assert!(!lab.path().join("state").exists());
}

#[test]
fn a_second_agent_is_refused_and_signals_end_the_first_well() {
    let lab = Lab::new();
    let first = lab.start();
    let (code, told) = lab.run(&[]);
    assert_eq!(code, 1, "{told}");
    assert!(told.contains(&format!("pid {}", first.child.id())), "{told}");
    let (code, log) = first.stop(signal::Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");

    let again = lab.start();
    let (code, log) = again.stop(signal::Signal::SIGINT);
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_failed_tls_handshake_is_in_the_log_with_its_peer() {
    let lab = Lab::new();
    let started = lab.start();
    let mut stranger = TcpStream::connect(&started.address).unwrap();
    let peer = stranger.local_addr().unwrap().to_string();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    // The agent hangs up once it has understood.
    stranger.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let _alert_or_reset = stranger.read_to_end(&mut Vec::new());
    let (code, log) = started.stop(signal::Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("TLS handshake failed")).collect();
    assert!(lines.len() == 1 && lines[0].contains(&peer), "{log}");
}

#[test]
fn an_agent_that_was_killed_starts_again() {
    let lab = Lab::new();
    let (code, _) = lab.start().stop(signal::Signal::SIGKILL);
    assert_eq!(code, None);
    let (code, _) = lab.start().stop(signal::Signal::SIGTERM);
    assert_eq!(code, Some(0));
}

#[test]
fn a_taken_port_is_a_failure_that_names_the_address() {
    let lab = Lab::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, told) = lab.run(&["--listen", &address]);
    assert_eq!(code, 1, "{told}");
    assert!(told.contains(&address), "{told}");
}

#[test]
fn a_reload_takes_what_it_can_and_names_what_needs_a_restart() {
    let lab = Lab::new();
    let file = lab.path().join("agent.toml");
    std::fs::write(&file, "log_filter = 'info'").unwrap();
    let mut started = lab.start_with(lab.agent(&[]).arg("--config").arg(&file));
    std::fs::write(&file, "log_filter = 'oblet=trace,warn'\nreflection = true\ngrace_seconds = 3").unwrap();
    let line = started.reload("needs a restart");
    assert!(line.contains("reflection") && !line.contains("grace_seconds"), "{line}");

    std::fs::write(&file, "log_filter = 'warn'\nretention_days = 0").unwrap();
    let line = started.reload("nothing is reloaded");
    assert!(line.contains("retention_days"), "{line}");
    let (code, log) = started.stop(signal::Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    // At level info, so the filter of the refused file is not in force; the grace time is that of the first reload.
    assert!(log.contains("the agent stops") && log.contains("grace_seconds=3"), "{log}");
}

#[test]
fn a_reload_exchanges_certificates_and_keeps_the_old_ones_when_they_do_not_fit() {
    let lab = Lab::new();
    let ours = CertificateAuthority::load_or_create(lab.path()).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let theirs = CertificateAuthority::load_or_create(elsewhere.path()).unwrap();
    let mut started = lab.start();
    assert!(lab.is_let_in(&ours, &started) && !lab.is_let_in(&theirs, &started));

    let issued = theirs.issue(Role::Agent, "agent", &[Ipv4Addr::LOCALHOST.into()]).unwrap();
    issued.write(lab.path(), "agent").unwrap();
    std::fs::copy(elsewhere.path().join("ca.pem"), lab.path().join("ca.pem")).unwrap();
    started.reload("settings and certificates are reloaded");
    assert!(lab.is_let_in(&theirs, &started) && !lab.is_let_in(&ours, &started));

    theirs.issue(Role::Agent, "other", &[]).unwrap().write(elsewhere.path(), "other").unwrap();
    std::fs::copy(elsewhere.path().join("other.key"), lab.path().join("agent.key")).unwrap();
    let line = started.reload("nothing is reloaded");
    assert!(line.contains("cannot be used together"), "{line}");
    assert!(lab.is_let_in(&theirs, &started));
    started.stop(signal::Signal::SIGTERM);
}

#[test]
fn the_service_manager_hears_of_every_turn() {
    let lab = Lab::new();
    let path = lab.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let next = |words: &str| loop {
        let mut buffer = [0; 4096];
        let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("{words}: {error}"));
        let news = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if news.contains(words) {
            break news;
        }
    };
    let mut command = lab.agent(&[]);
    let started = lab.start_with(command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000000"));
    next("READY=1");
    TcpStream::connect(&started.address).unwrap();
    // Fed again and again while nothing is to be done.
    for _ in 0..3 {
        next("WATCHDOG=1");
    }
    started.signal(signal::Signal::SIGHUP);
    assert!(next("RELOADING=1").contains("MONOTONIC_USEC="));
    next("READY=1");
    started.signal(signal::Signal::SIGTERM);
    next("STOPPING=1");
    let (code, log) = started.stop(signal::Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn root_the_journal_gets_entries_with_fields_when_it_reads_stderr() {
    if !nix::unistd::geteuid().is_root() {
        return skip::skip("mounting the place of the journal's socket needs root");
    }
    let lab = Lab::new();
    std::fs::create_dir_all(lab.path().join("run/systemd/journal")).unwrap();
    let journal = UnixDatagram::bind(lab.path().join("run/systemd/journal/socket")).unwrap();
    journal.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let stderr = std::fs::File::create(lab.path().join("stderr")).unwrap();
    let stream = stderr.metadata().unwrap();
    let agent = lab.agent(&[]);
    let mut command = Command::new("unshare");
    command
        .env_clear()
        .envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("JOURNAL_STREAM", format!("{}:{}", stream.dev(), stream.ino()))
        .args(["--mount", "sh", "-c", "mount --bind \"$1\" /run && exec \"$0\""])
        .arg(agent.get_program())
        .arg(lab.path().join("run"))
        .stderr(stderr);
    let mut child = command.spawn().unwrap();
    let entry = loop {
        let mut buffer = [0; 4096];
        // Silence is told below, when nothing runs any more.
        let Ok(length) = journal.recv(&mut buffer) else { break String::new() };
        let entry = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if entry.contains("the agent is ready") {
            break entry;
        }
    };
    signal::kill(Pid::from_raw(child.id().cast_signed()), signal::Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    for field in ["MESSAGE=the agent is ready address=127.0.0.1:", "SYSLOG_IDENTIFIER=oblet-agent", "PRIORITY=6"] {
        assert!(entry.lines().any(|line| line.starts_with(field)), "{field} is not in {entry:?}");
    }
    assert!(entry.lines().any(|line| line.starts_with("OBLET_ADDRESS=127.0.0.1:")), "{entry:?}");
    assert_eq!(std::fs::read_to_string(lab.path().join("stderr")).unwrap(), "");
}

#[test]
fn twenty_thousand_sockets_cost_an_agent_neither_its_calls_nor_its_memory() {
    let lab = Lab::new();
    let authority = CertificateAuthority::load_or_create(lab.path()).unwrap();
    let started = lab.start();
    let metrics_port = lab.described(&authority, &started).unwrap().metrics_port;
    let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(metrics_port).unwrap()));
    let before = flood::resident_mib(started.child.id());
    for address in [metrics, started.address.parse().unwrap()] {
        let strangers = flood::flood(address);
        let mut scrape = TcpStream::connect(metrics).unwrap();
        scrape.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        scrape.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        scrape.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        lab.described(&authority, &started).unwrap();
        let grown = flood::resident_mib(started.child.id()).saturating_sub(before);
        assert!(grown < 32, "{} connections at {address} cost {grown} MiB", strangers.len());
    }
}

#[test]
fn strangers_at_an_agent_with_few_descriptors_keep_the_coordinator_from_nothing() {
    let lab = Lab::new();
    let authority = CertificateAuthority::load_or_create(lab.path()).unwrap();
    let started = lab.start_with(&mut lab.agent_with_files(&[], Some(128)));
    let metrics_port = lab.described(&authority, &started).unwrap().metrics_port;
    let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(metrics_port).unwrap()));
    let mut strangers = flood::connect(metrics, 300);
    strangers.extend(flood::connect(started.address.parse().unwrap(), 300));
    lab.described(&authority, &started).unwrap();
}

#[test]
fn an_agent_without_a_free_descriptor_waits_and_goes_on_when_there_is_one() {
    let lab = Lab::new();
    let authority = CertificateAuthority::load_or_create(lab.path()).unwrap();
    let mut started = lab.start_with(&mut lab.agent_with_files(&[], Some(1000)));
    let pid = started.child.id();
    let metrics_port = lab.described(&authority, &started).unwrap().metrics_port;
    let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(metrics_port).unwrap()));
    flood::leave_descriptors(pid, 8);
    let mut strangers = flood::connect(metrics, 30);
    strangers.extend(flood::connect(started.address.parse().unwrap(), 30));
    flood::wait_for(|| flood::free_descriptors(pid) == 0);
    assert!(flood::spent_in(pid, Duration::from_secs(2)) < Duration::from_millis(400), "it does not pause");
    assert!(started.child.try_wait().unwrap().is_none(), "the agent has ended");
    drop(strangers);
    flood::wait_for(|| lab.is_let_in(&authority, &started));
}

/// A shell starts programs with a soft limit of 1024, which strangers with sockets use up.
#[test]
fn an_agent_may_have_as_many_files_as_its_hard_limit_allows() {
    let lab = Lab::new();
    let started = lab.start_with(&mut lab.agent_with_files(&[], Some(3000)));
    assert_eq!(flood::limit_of_files(started.child.id()), (3000, 3000));
}
