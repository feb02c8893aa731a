//! The program `oblet-agent` as systemd sees it: arguments, exit codes, signals.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use nix::{sys::signal, unistd::Pid};
use oblet::tls::{CertificateAuthority, Role};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

struct Lab {
    directory: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::load_or_create(directory.path()).unwrap();
        authority.issue(Role::Agent, "agent", &[]).unwrap().write(directory.path(), "agent").unwrap();
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn agent(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oblet-agent"));
        command
            .env_clear()
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
        let mut child = self.agent(&[]).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("the agent is ready") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the agent ended before it was ready");
        }
        let address = line.split_once("address=").unwrap().1.trim().to_owned();
        Started { child, address, log: Box::new(log) }
    }
}

struct Started {
    child: Child,
    address: String,
    log: Box<dyn std::io::Read>,
}

impl Started {
    fn stop(mut self, by: signal::Signal) -> (Option<i32>, String) {
        signal::kill(Pid::from_raw(self.child.id().cast_signed()), by).unwrap();
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
    assert_eq!(lab.run(&["--check-config"]), (0, String::new()));
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
