//! A whole installation with the stand-in of obproxy.

use crate::place::{Place, rpm_is_missing, running, start_step};
use oblet::{
    agent::HostView as _,
    graph::Effect,
    steps::{
        AgentStep, CheckProcesses, ExposeExporter, Instance, InstanceKind, RefreshConfig, SetObproxyPasswords,
        StartObproxy, SyncObproxyParameters,
        values::{PackageRef, Parameter},
    },
};
use std::{fs, os::unix::fs::MetadataExt as _};

/// Every step of the operation "install obproxy" after the checks.
fn steps_of_an_installation(place: &Place) -> Vec<AgentStep> {
    let binary = oblet_standins::program("obproxy").unwrap();
    let path =
        oblet_standins::package::build(&oblet_standins::package::Options::new(binary, place.dir.path())).unwrap();
    let package: PackageRef = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let install = place.put_file(package.clone(), &fs::read(path).unwrap());
    let start = StartObproxy { package, ..start_step() };
    let sql_port = start.sql_port;
    let parameter = |name: &str, value: &str| Parameter { name: name.parse().unwrap(), value: value.parse().unwrap() };
    let instance = Instance {
        kind: InstanceKind::Obproxy,
        sql_port,
        exporter_port: start.exporter_port,
        cluster_name: "odp".parse().unwrap(),
        cluster_id: 7,
        server_id: 8,
    };
    vec![
        install,
        AgentStep::StartObproxy(start),
        AgentStep::SyncObproxyParameters(SyncObproxyParameters {
            sql_port,
            parameters: vec![parameter("proxy_mem_limited", "4G"), parameter("syslog_level", "INFO")],
        }),
        AgentStep::SetObproxyPasswords(SetObproxyPasswords { sql_port }),
        AgentStep::RefreshConfig(RefreshConfig { instance: instance.clone() }),
        AgentStep::ExposeExporter(ExposeExporter { instance }),
    ]
}

#[tokio::test]
async fn every_step_has_one_effect_and_every_undo_is_quiet_the_second_time() {
    if rpm_is_missing() {
        return;
    }
    let mut place = Place::new();
    let steps = steps_of_an_installation(&place);
    let mut attempts = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let first = place.execute(step, &format!("first-{number}"), None).await;
        assert_eq!(first.result.unwrap().effect, Effect::Done, "{}", step.kind());
        let second = place.execute(step, &format!("second-{number}"), None).await;
        assert_eq!(second.result.unwrap().effect, Effect::None, "{}", step.kind());
        assert_eq!(place.undo(step, &format!("quiet-{number}"), &[second.undoes]).await, Effect::None);
        attempts.push(first.undoes);
    }
    assert_eq!(place.host.config_generation(), 2);
    // The agent restarts, the instance does not.
    let before = place.host.instances();
    place.host = Place::open(place.dir.path());
    assert!(before[0].alive);
    assert_eq!(place.host.instances(), before);
    let keyword = AgentStep::CheckProcesses(CheckProcesses { keywords: vec!["obproxy".parse().unwrap()] });
    let found = place.execute(&keyword, "check", None).await.result.unwrap_err();
    assert!(found.message.contains(&format!("pid {}", before[0].pid)), "{}", found.message);

    let log = fs::read_to_string(place.dir.path().join("log")).unwrap();
    assert!(!log.contains("not-to-be-seen"));
    for (number, (step, undoes)) in steps.iter().zip(attempts).enumerate().rev() {
        let changes = !matches!(step, AgentStep::SyncObproxyParameters(_) | AgentStep::SetObproxyPasswords(_));
        let expected = if changes { Effect::Done } else { Effect::None };
        let undoes = [undoes];
        assert_eq!(place.undo(step, &format!("undo-{number}"), &undoes).await, expected, "{}", step.kind());
        assert_eq!(place.undo(step, &format!("again-{number}"), &undoes).await, Effect::None, "{}", step.kind());
    }
    assert!(place.host.instances().is_empty());
    place.execute(&keyword, "check", None).await.result.unwrap();
}

#[tokio::test]
async fn a_wrong_parameter_names_itself() {
    if rpm_is_missing() {
        return;
    }
    let place = Place::new();
    let steps = steps_of_an_installation(&place);
    let [install, start, ..] = steps.as_slice() else { panic!("two steps at least") };
    place.execute(install, "i", None).await.result.unwrap();
    let started = place.execute(start, "s", None).await;
    started.result.unwrap();
    let AgentStep::StartObproxy(StartObproxy { sql_port, .. }) = start else { panic!("the second step starts") };
    let parameters = vec![Parameter { name: "no_such_item".parse().unwrap(), value: "1".parse().unwrap() }];
    let sync = AgentStep::SyncObproxyParameters(SyncObproxyParameters { sql_port: *sql_port, parameters });
    let error = place.execute(&sync, "p", None).await.result.unwrap_err();
    assert_eq!(error.reason, "PARAMETER_UNKNOWN");
    assert!(error.message.contains("no_such_item") && !error.next_move.is_empty());
    assert_eq!(place.undo(start, "u", &[started.undoes]).await, Effect::Done);
}

#[tokio::test]
async fn root_starts_the_proxy_as_the_run_user() {
    if rpm_is_missing() {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: this test needs root");
        return;
    }
    let place = Place::with_run_user("nobody");
    let steps = steps_of_an_installation(&place);
    let [install, start, ..] = steps.as_slice() else { panic!("two steps at least") };
    place.execute(install, "i", None).await.result.unwrap();
    let attempt = place.execute(start, "s", None).await;
    attempt.result.unwrap();
    let identity: serde_json::Value = serde_json::from_str(attempt.undoes.identity.as_deref().unwrap()).unwrap();
    let run = place.dir.path().join("state/runs").join(identity["run"].as_str().unwrap());
    let process = running(&run).await;
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let four = |id: u32| [id.to_string().as_str(); 4].join("\t");
    assert_eq!(line("Uid:"), four(nobody.uid.as_raw()));
    assert_eq!(line("Gid:"), four(nobody.gid.as_raw()));
    let own = nobody.gid.to_string();
    assert!(line("Groups:").split_whitespace().all(|group| group == own), "no group of root is left");
    let AgentStep::StartObproxy(StartObproxy { sql_port, .. }) = start else { panic!("the second step starts") };
    let log = place.dir.path().join("root/var/log/oblet").join(format!("obproxy@{sql_port}.out"));
    assert_eq!(fs::metadata(&log).unwrap().uid(), 0);
    assert_eq!(fs::metadata(log.parent().unwrap()).unwrap().uid(), 0, "nobody can put a link in the place of the log");
    assert_eq!(place.undo(start, "u", &[attempt.undoes]).await, Effect::Done);
}
