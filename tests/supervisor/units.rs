//! What an administrator sees and may rely on where systemd is the supervisor.

use crate::{
    place::{Place, supervisor, until},
    systemctl::{kill, property, systemctl, unit_file},
};
use oblet::agent::host::{RunOutcome, RunState};
use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// A limit of a process: the soft one is in column 0, the hard one in column 1.
fn limit(pid: i32, name: &str, column: usize) -> u64 {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    // Everything that is no number is "unlimited".
    line.split_whitespace().nth(column).unwrap().parse().unwrap_or(u64::MAX)
}

#[tokio::test]
#[ignore = "runs on a host of the lab, with its systemd: lab_systemd_does_what_the_direct_supervisor_does"]
async fn lab_a_service_is_a_unit_that_says_what_it_is() {
    let place = Place::new();
    let run = place.run("service");
    place.start(&run, &place.service("exec sleep 600")).await;
    let process = place.running(&run).await;
    assert_eq!(property(&place.unit, "MainPID"), process.pid.to_string());
    assert_eq!(property(&place.unit, "ActiveState"), "active");
    assert!(property(&place.unit, "Description").starts_with("a script below"));
    assert_eq!(systemctl(&["is-enabled", &place.unit]).trim(), "enabled");
    let parent = procfs::process::Process::new(process.pid).unwrap().stat().unwrap().ppid;
    assert_eq!(parent, 1, "PID 1 is the parent");
    for (name, wanted) in [
        ("Max open files", 655_350),
        ("Max processes", 655_360),
        ("Max core file size", u64::MAX),
        ("Max stack size", 20_480 << 10),
    ] {
        // A container without CAP_SYS_RESOURCE gives no more than it got.
        let most = limit(1, name, 1);
        assert_eq!(limit(process.pid, name, 0), wanted.min(most), "{name}");
    }
    let file = unit_file(&place);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    let text = fs::read_to_string(file).unwrap();
    // The variables stand in the command, for the helper runs as root and is to take nothing from them.
    assert!(!text.contains("Environment"), "{text}");
    assert!(
        text.contains(r#"ExecStart=/usr/bin/env -i "PATH=/usr/sbin:/usr/bin:/sbin:/bin" "/bin/sh" "-c" "#),
        "{text}"
    );
    for name in ["Environment", "EnvironmentFiles", "PassEnvironment"] {
        assert_eq!(property(&place.unit, name), "", "{name}");
    }
}

#[tokio::test]
#[ignore = "runs on a host of the lab, with its systemd: lab_systemd_does_what_the_direct_supervisor_does"]
async fn lab_a_service_that_was_never_kept_ends_for_good() {
    let place = Place::new();
    let run = place.run("service");
    place.start(&run, &place.service("echo x >> starts; exec sleep 600")).await;
    until("the program", || place.read("starts") == "x\n").await;
    kill(&place.running(&run).await);
    assert_eq!(place.outcome(&run).await, RunOutcome::Signal(9));
    assert!(!unit_file(&place).exists(), "no boot starts it again");
    assert_eq!(property(&place.unit, "LoadState"), "not-found");
    assert_eq!(supervisor().find(&run).await.unwrap(), RunState::Ended(RunOutcome::Signal(9)));
    assert_eq!(place.read("starts"), "x\n");
}

#[tokio::test]
#[ignore = "runs on a host of the lab, with its systemd: lab_systemd_does_what_the_direct_supervisor_does"]
async fn lab_a_second_run_of_a_service_is_refused_while_the_first_lives() {
    let place = Place::new();
    let (first, second) = (place.run("first"), place.run("second"));
    let launch = place.service("exec sleep 600");
    place.start(&first, &launch).await;
    let process = place.running(&first).await;
    let error = place.supervisor.start(&second, &launch).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(place.supervisor.find(&second).await.unwrap(), RunState::Nothing);
    place.supervisor.stop(&second, Duration::ZERO).await.unwrap();
    assert!(process.is_alive(), "the stop of one run never ends another one");

    place.supervisor.stop(&first, Duration::ZERO).await.unwrap();
    let third = place.run("third");
    place.start(&third, &launch).await;
    place.running(&third).await;
    assert!(matches!(place.supervisor.find(&first).await.unwrap(), RunState::Ended(_)));
}

#[tokio::test]
#[ignore = "runs on a host of the lab, with its systemd: lab_systemd_does_what_the_direct_supervisor_does"]
async fn lab_stopping_reaches_what_has_left_the_session() {
    let place = Place::new();
    for (run, launch) in place.both("setsid sh -c 'trap \"\" TERM; echo $$ > far; sleep 600' & sleep 600") {
        place.start(&run, &launch).await;
        until("the child", || place.read("far").ends_with('\n')).await;
        let far = Path::new("/proc").join(place.read("far").trim());
        assert!(far.exists());
        place.supervisor.stop(&run, Duration::from_millis(200)).await.unwrap();
        until("the end of the child", || !far.exists()).await;
        fs::remove_file(place.path("far")).unwrap();
    }
}

#[tokio::test]
#[ignore = "runs on a host of the lab, with its systemd: lab_systemd_does_what_the_direct_supervisor_does"]
async fn lab_a_job_that_ends_leaves_no_unit() {
    let place = Place::new();
    let run = place.run("job");
    place.start(&run, &place.job("exit 3")).await;
    assert_eq!(place.outcome(&run).await, RunOutcome::ExitCode(3));
    let unit = format!("oblet-job-{}.service", run.file_name().unwrap().to_string_lossy());
    until("the end of the unit", || property(&unit, "LoadState") == "not-found").await;
}

#[tokio::test]
#[ignore = "runs on a host of the lab, with its systemd: lab_systemd_does_what_the_direct_supervisor_does"]
async fn lab_a_service_whose_files_were_collected_is_found_by_its_unit() {
    let place = Place::new();
    let run = place.run("service");
    place.start(&run, &place.service("exec sleep 600")).await;
    place.supervisor.keep(&run).await.unwrap();
    let process = place.running(&run).await;
    fs::remove_dir_all(&run).unwrap();
    assert_eq!(place.running(&run).await, process);
    place.supervisor.stop(&run, Duration::ZERO).await.unwrap();
    assert!(!process.is_alive() && !unit_file(&place).exists());
    assert_eq!(place.supervisor.find(&run).await.unwrap(), RunState::Nothing);
}

#[tokio::test]
#[ignore = "runs on a host of the lab, with its systemd: lab_systemd_does_what_the_direct_supervisor_does"]
async fn lab_a_service_that_was_claimed_and_never_began_never_will() {
    let place = Place::new();
    let run = place.run("service");
    fs::create_dir_all(&run).unwrap();
    // What an agent leaves that dies before it asks systemd for the start.
    fs::write(run.join("claim"), format!("{{\"unit\":{:?}}}", place.unit)).unwrap();
    let name = run.file_name().unwrap().to_string_lossy();
    let text = format!("[Unit]\nX-Oblet-Run={name}\n[Service]\nRestart=no\nExecStart=/bin/sleep 600\n");
    fs::write(unit_file(&place), text).unwrap();
    assert_eq!(place.supervisor.find(&run).await.unwrap(), RunState::Nothing);
    assert!(!unit_file(&place).exists());
    assert!(!Command::new("systemctl").args(["start", &place.unit]).status().unwrap().success());
}

#[tokio::test]
#[ignore = "runs on a host of the lab, with its systemd: lab_systemd_does_what_the_direct_supervisor_does"]
async fn lab_a_unit_of_somebody_else_is_never_touched() {
    let place = Place::new();
    let run = place.run("service");
    let text = "[Service]\nExecStart=/bin/sleep 600\n";
    fs::write(unit_file(&place), text).unwrap();
    let refused = place.supervisor.start(&run, &place.service("exec sleep 600")).await;
    place.supervisor.stop(&run, Duration::ZERO).await.unwrap();
    let left = fs::read_to_string(unit_file(&place)).unwrap();
    fs::remove_file(unit_file(&place)).unwrap();
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(left, text);
}

#[tokio::test]
#[ignore = "runs on a host of the lab, with its systemd: lab_systemd_does_what_the_direct_supervisor_does"]
async fn lab_a_bus_that_starts_anew_is_connected_to_again() {
    let place = Place::new();
    let run = place.run("service");
    place.start(&run, &place.service("exec sleep 600")).await;
    let process = place.running(&run).await;
    systemctl(&["restart", "dbus.service"]);
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match place.supervisor.find(&run).await {
            Ok(state) => break assert_eq!(state, RunState::Running(process)),
            // Unknown for as long as there is no bus, and never ended.
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
