use crate::contents::{AGENT_SERVICE, COORDINATOR_SERVICE};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

const COMMANDS: [&str; 6] = ["systemctl", "systemd-sysusers", "id", "useradd", "install", "rm"];

/// Runs a scriptlet where each command notes its call and fails, and where nothing else can be reached; it has to
/// succeed all the same. Answers the calls.
fn calls(script: &str, arguments: &[&str]) -> Vec<String> {
    let place = tempfile::tempdir().unwrap();
    let notes = place.path().join("notes");
    fs::write(&notes, "").unwrap();
    for command in COMMANDS {
        let stub = place.path().join(command);
        fs::write(&stub, format!("#!/bin/sh\necho \"{command} $*\" >>{}\nexit 1\n", notes.display())).unwrap();
        fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).unwrap();
    }
    run(&script.replace("/run/systemd/system", place.path().to_str().unwrap()), arguments, place.path());
    fs::read_to_string(&notes).unwrap().lines().map(str::to_owned).collect()
}

fn run(script: &str, arguments: &[&str], path: &std::path::Path) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script, "scriptlet"]).args(arguments).env_clear().env("PATH", path);
    let status = shell.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{status} of {arguments:?}: {script}");
}

const RELOAD: &str = "systemctl daemon-reload";
const PRESET: &str = "systemctl --no-reload preset oblet-agent.service";
const RESTART: &str = "systemctl --no-block try-restart oblet-agent.service";
const STOP: [&str; 2] = ["systemctl --no-reload disable oblet-agent.service", "systemctl stop oblet-agent.service"];
const LIST: &str = "systemctl list-units --no-legend --plain oblet-obproxy@* oblet-observer@* oblet-job-*";

#[test]
fn installing_starts_and_enables_nothing() {
    let (rpm, debian) = (AGENT_SERVICE.rpm(), AGENT_SERVICE.debian());
    assert_eq!(calls(&rpm.post, &["1"]), [RELOAD, PRESET]);
    assert_eq!(calls(&debian.postinst, &["configure", ""]), [RELOAD, PRESET]);
}

#[test]
fn an_upgrade_restarts_the_service_alone_and_only_at_its_end() {
    let (rpm, debian) = (AGENT_SERVICE.rpm(), AGENT_SERVICE.debian());
    assert_eq!(calls(&rpm.post, &["2"]), [RELOAD]);
    assert_eq!(calls(&rpm.preun, &["1"]), [""; 0]);
    assert_eq!(calls(&rpm.postun, &["1"]), [""; 0]);
    assert_eq!(calls(&rpm.posttrans, &["1"]), [RESTART]);
    assert_eq!(calls(&debian.prerm, &["upgrade", "0.1.0-2"]), [""; 0]);
    assert_eq!(calls(&debian.postrm, &["upgrade", "0.1.0-2"]), [""; 0]);
    assert_eq!(calls(&debian.postinst, &["configure", "0.1.0-1"]), [RELOAD, RESTART]);
}

#[test]
fn removal_stops_the_service_and_lists_what_runs_on() {
    let (rpm, debian) = (AGENT_SERVICE.rpm(), AGENT_SERVICE.debian());
    assert_eq!(calls(&rpm.preun, &["0"]), STOP);
    assert_eq!(calls(&rpm.postun, &["0"]), [RELOAD, LIST]);
    assert_eq!(calls(&debian.prerm, &["remove"]), STOP);
    assert_eq!(calls(&debian.postrm, &["remove"]), [RELOAD, LIST]);
}

#[test]
fn a_purge_takes_the_configuration_and_nothing_else() {
    assert_eq!(calls(&AGENT_SERVICE.debian().postrm, &["purge"]), ["rm -rf /etc/oblet-agent"]);
    assert_eq!(calls(&COORDINATOR_SERVICE.debian().postrm, &["purge"]), ["rm -rf /etc/oblet-coordinator"]);
}

#[test]
fn the_coordinator_gets_its_user_before_its_directory() {
    let called = calls(&COORDINATOR_SERVICE.rpm().post, &["2"]);
    let commands: Vec<_> = called.iter().filter_map(|call| call.split(' ').next()).collect();
    assert_eq!(commands, ["systemd-sysusers", "id", "useradd", "install", "systemctl"]);
}

#[test]
fn nothing_fails_where_no_service_manager_is() {
    let nothing = tempfile::tempdir().unwrap();
    for service in [AGENT_SERVICE, COORDINATOR_SERVICE] {
        let (rpm, debian) = (service.rpm(), service.debian());
        for script in [rpm.post, rpm.preun, rpm.postun, rpm.posttrans] {
            let script = script.replace("/run/systemd/system", "/nonexistent");
            ["0", "1", "2"].iter().for_each(|copies| run(&script, &[copies], nothing.path()));
        }
        for script in [debian.postinst, debian.prerm, debian.postrm] {
            let script = script.replace("/run/systemd/system", "/nonexistent");
            ["configure", "remove", "purge", "abort-upgrade"]
                .iter()
                .for_each(|action| run(&script, &[action], nothing.path()));
        }
    }
}
