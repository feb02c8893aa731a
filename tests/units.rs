//! The unit files, as text and through systemd's own eyes.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

#[path = "support/skip.rs"]
mod skip;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

struct Unit {
    name: &'static str,
    program: &'static str,
    /// `systemd-analyze security` counts from 0, nothing is reachable, to 10.
    most_exposure: f64,
}

const AGENT: Unit =
    Unit { name: "oblet-agent.service", program: env!("CARGO_BIN_EXE_oblet-agent"), most_exposure: 2.8 };
const COORDINATOR: Unit =
    Unit { name: "oblet-coordinator.service", program: env!("CARGO_BIN_EXE_oblet-coordinator"), most_exposure: 1.2 };

impl Unit {
    fn path(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(self.name)
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.path()).unwrap()
    }

    /// All values of a key of the section [Service] or [Unit], in their order.
    fn values(&self, key: &str) -> Vec<String> {
        let text = self.text();
        let settings = text.lines().filter_map(|line| line.split_once('='));
        settings.filter(|(name, _)| *name == key).map(|(_, value)| value.to_owned()).collect()
    }

    fn value(&self, key: &str) -> String {
        let values = self.values(key);
        assert_eq!(values.len(), 1, "{key} of {}: {values:?}", self.name);
        values.concat()
    }

    /// Installed nowhere: a copy that starts the program of this build.
    fn verify(&self) {
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join(self.name);
        let installed = self.value("ExecStart");
        let installed = installed.split(' ').next().unwrap();
        std::fs::write(&copy, self.text().replace(installed, self.program)).unwrap();
        let Some((succeeded, told)) = analyze(&["verify", "--man=no", copy.to_str().unwrap()]) else { return };
        let ours: Vec<&str> = told.lines().filter(|line| line.contains(self.name)).collect();
        assert!(succeeded && ours.is_empty(), "{told}");
    }

    fn expose(&self) {
        let path = self.path();
        let Some((_, told)) = analyze(&["security", "--offline=true", "--no-pager", path.to_str().unwrap()]) else {
            return;
        };
        let (_, level) = told.rsplit_once("Overall exposure level for ").unwrap();
        let level: f64 = level.split_once(": ").unwrap().1.split_whitespace().next().unwrap().parse().unwrap();
        assert!(level <= self.most_exposure, "{level}\n{told}");
    }
}

/// Whether systemd-analyze succeeded, and what it said; none if it cannot be asked here.
fn analyze(arguments: &[&str]) -> Option<(bool, String)> {
    let output = Command::new("systemd-analyze").args(arguments).output();
    if output.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        skip::skip("there is no systemd-analyze");
        return None;
    }
    let output = output.unwrap();
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    if told.contains("unrecognized option") {
        skip::skip("this systemd-analyze is too old");
        return None;
    }
    Some((output.status.success(), told))
}

#[test]
fn systemd_accepts_the_unit_of_the_agent() {
    AGENT.verify();
}

#[test]
fn systemd_accepts_the_unit_of_the_coordinator() {
    COORDINATOR.verify();
}

#[test]
fn the_coordinator_reaches_next_to_nothing() {
    COORDINATOR.expose();
}

#[test]
fn the_agent_reaches_no_more_than_its_work_needs() {
    AGENT.expose();
}

#[test]
fn nothing_is_left_in_the_control_group_of_a_daemon_that_was_stopped() {
    for unit in [AGENT, COORDINATOR] {
        assert_eq!(unit.value("KillMode"), "mixed");
    }
}

#[test]
fn a_daemon_is_ready_when_it_says_so_and_is_watched() {
    for unit in [AGENT, COORDINATOR] {
        assert_eq!((unit.value("Type"), unit.value("NotifyAccess")), ("notify".to_owned(), "main".to_owned()));
        assert_eq!((unit.value("WatchdogSec"), unit.value("Restart")), ("60".to_owned(), "on-failure".to_owned()));
    }
}

#[test]
fn what_was_never_configured_does_not_start() {
    assert_eq!(AGENT.value("ConditionPathExists"), "/etc/oblet-agent/agent.pem");
    assert_eq!(COORDINATOR.value("ConditionPathExists"), "/etc/oblet-coordinator/coordinator.toml");
}

#[test]
fn system_calls_are_forbidden_by_name_so_that_an_old_systemd_does_not_kill_the_daemon() {
    for unit in [AGENT, COORDINATOR] {
        let filters = unit.values("SystemCallFilter");
        assert!(filters.first().is_some_and(|first| first.starts_with('~')), "{filters:?}");
    }
}
