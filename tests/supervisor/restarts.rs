//! What becomes of a service under systemd that is kept: it ends, it hands over, it is stopped and started by others.

use crate::{
    place::{Place, agent, supervisor, supervisor_of, until},
    systemctl::{helper_file, kill, main_pid, noted_pid, pid_file, property, systemctl, unit_file},
};
use oblet::agent::host::{ProcessId, RunOutcome, RunState};
use procfs::{Current as _, Uptime};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// A service that its step has seen serve.
async fn kept(place: &Place, script: &str) -> (PathBuf, ProcessId) {
    let run = place.run("service");
    place.start(&run, &place.service(script)).await;
    let process = place.running(&run).await;
    place.supervisor.keep(&run).await.unwrap();
    (run, process)
}

/// The next life of a service.
async fn after(place: &Place, run: &Path, before: &ProcessId) -> ProcessId {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match place.supervisor.find(run).await.unwrap() {
            RunState::Running(process) if process != *before => break process,
            RunState::Running(_) | RunState::Between => {}
            other => panic!("a kept service never ends by itself: {other:?}"),
        }
        assert!(Instant::now() < end, "it did not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
#[ignore = "runs on a host of the lab, with its systemd: lab_systemd_does_what_the_direct_supervisor_does"]
async fn lab_a_kept_service_comes_back_after_a_failure() {
    let place = Place::new();
    let (run, before) = kept(&place, "echo x >> starts; exec sleep 600").await;
    place.supervisor.keep(&run).await.unwrap();
    kill(&before);
    let after = after(&place, &run, &before).await;
    assert_eq!(place.supervisor.peek(&run).unwrap(), Some(after));
    until("the second start", || place.read("starts") == "x\nx\n").await;

    systemctl(&["stop", &place.unit]);
    assert_eq!(place.outcome(&run).await, RunOutcome::Signal(15));
    systemctl(&["start", &place.unit]);
    place.running(&run).await;
}

#[tokio::test]
#[ignore = "runs on a host of the lab, with its systemd: lab_systemd_does_what_the_direct_supervisor_does"]
async fn lab_a_kept_service_that_ends_by_itself_comes_back_and_nobody_takes_the_helper_for_it() {
    let place = Place::new();
    let script = "echo x >> starts; until [ -e end ]; do sleep 0.02; done; rm end; exit 0";
    let (run, before) = kept(&place, script).await;
    until("the first start", || place.read("starts") == "x\n").await;
    fs::write(place.path("end"), "").unwrap();
    until("the pause", || property(&place.unit, "SubState") == "start-pre").await;
    assert!(!pid_file(&place).exists(), "the process of that file has ended");
    assert_eq!(place.supervisor.find(&run).await.unwrap(), RunState::Between);
    assert!(!place.supervisor.processes(&run).unwrap().is_empty(), "the helper lives");
    assert_eq!(place.supervisor.peek(&run).unwrap(), None);
    let after = after(&place, &run, &before).await;
    assert_eq!(noted_pid(&place), after.pid);
    assert_eq!(place.supervisor.peek(&run).unwrap(), Some(after));
    until("the second start", || place.read("starts") == "x\nx\n").await;
}

#[tokio::test]
#[ignore = "runs on a host of the lab, with its systemd: lab_systemd_does_what_the_direct_supervisor_does"]
async fn lab_the_pause_before_each_further_start_grows_and_a_stop_need_not_wait_for_it() {
    let place = Place::new();
    // It lives until it is kept, and later long enough to be noted.
    let (run, _) = kept(&place, "date +%s%3N >> starts; until [ -e kept ]; do sleep 0.02; done; sleep 0.1").await;
    fs::write(place.path("kept"), "").unwrap();
    let starts = || place.read("starts").lines().map(|line| line.parse::<u64>().unwrap()).collect::<Vec<_>>();
    until("the third start", || starts().len() == 3).await;
    let starts = starts();
    let gaps: Vec<u64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // A second, then two, to which systemd adds one of its own; that they are no longer is for the helper's own tests.
    assert!(gaps[0] >= 2000 && gaps[1] >= 3000, "{gaps:?}");
    // How many starts there were, and when the pause ends.
    let noted = || fs::read_to_string(helper_file(&place, "starts")).unwrap();
    until("the pause before the fourth start", || noted().starts_with("3 ")).await;
    assert_eq!(place.supervisor.find(&run).await.unwrap(), RunState::Between);
    let end: u64 = noted().split_whitespace().nth(1).unwrap().parse().unwrap();
    systemctl(&["stop", &place.unit]);
    let uptime = Uptime::current().unwrap().uptime;
    assert!(uptime < end as f64, "it was stopped {uptime} s after boot, the pause would have ended at {end}");
    assert_eq!(property(&place.unit, "ActiveState"), "inactive");
    place.supervisor.stop(&run, Duration::ZERO).await.unwrap();
    assert!(!helper_file(&place, "starts").exists(), "nothing is left of a unit that was taken away");
}

#[tokio::test]
#[ignore = "runs on a host of the lab, with its systemd: lab_systemd_does_what_the_direct_supervisor_does"]
async fn lab_a_proxy_that_is_told_to_end_and_says_1_has_not_failed() {
    let place = Place::new();
    let (run, process) = kept(&place, "trap 'exit 1' TERM; touch up; while :; do sleep 0.05; done").await;
    until("the program", || place.path("up").exists()).await;
    systemctl(&["stop", &place.unit]);
    assert_eq!(property(&place.unit, "ActiveState"), "inactive");
    assert_eq!(place.supervisor.find(&run).await.unwrap(), RunState::Ended(RunOutcome::ExitCode(1)));
    assert!(!process.is_alive() && unit_file(&place).exists(), "the next boot starts it");
    systemctl(&["start", &place.unit]);
    assert_eq!(place.running(&run).await.pid, noted_pid(&place));
    systemctl(&["restart", &place.unit]);
    assert_eq!(property(&place.unit, "ActiveState"), "active");
    assert_eq!(place.running(&run).await.pid, noted_pid(&place));
}

/// What a hot restart does: the child serves on, the file names it, and then the parent ends with 1.
#[tokio::test]
#[ignore = "runs on a host of the lab, with its systemd: lab_systemd_does_what_the_direct_supervisor_does"]
async fn lab_the_main_process_moves_to_a_child_that_the_file_names_in_time() {
    let place = Place::new();
    let script = "sleep 600 & echo $! > child; until [ -e handed ]; do sleep 0.02; done; exit 1";
    let (run, old) = kept(&place, script).await;
    until("the child", || place.read("child").ends_with('\n')).await;
    let child: i32 = place.read("child").trim().parse().unwrap();
    let invocation = property(&place.unit, "InvocationID");
    let new = pid_file(&place).with_extension("new");
    fs::write(&new, format!("{child}\n")).unwrap();
    fs::rename(new, pid_file(&place)).unwrap();
    assert_eq!(main_pid(&place.unit), old.pid, "systemd looks when the main process ends");
    assert_eq!(place.supervisor.peek(&run).unwrap().unwrap().pid, child);
    fs::write(place.path("handed"), "").unwrap();
    until("the move", || main_pid(&place.unit) == child).await;
    assert!(!old.is_alive());
    let now = place.running(&run).await;
    assert_eq!((now.pid, property(&place.unit, "ActiveState").as_str()), (child, "active"));
    assert_eq!(
        (property(&place.unit, "InvocationID"), noted_pid(&place)),
        (invocation, child),
        "it was not started again"
    );
    assert_eq!(supervisor().peek(&run).unwrap(), Some(now.clone()));
    // From here on it is the one that counts.
    fs::remove_file(place.path("handed")).unwrap();
    kill(&now);
    after(&place, &run, &now).await;
}

#[tokio::test]
#[ignore = "runs on a host of the lab, with its systemd: lab_systemd_does_what_the_direct_supervisor_does"]
async fn lab_a_service_needs_neither_the_package_of_the_agent_nor_its_directory_in_run() {
    let mut place = Place::new();
    let program = place.path("oblet-agent");
    fs::copy(agent(), &program).unwrap();
    place.supervisor = supervisor_of(program.clone());
    let (run, _) = kept(&place, "exec sleep 600").await;
    fs::remove_file(program).unwrap();
    systemctl(&["stop", &place.unit]);
    // As the next boot finds it.
    fs::remove_dir_all("/run/oblet-agent").unwrap();
    let started = Command::new("systemctl").args(["start", &place.unit]).status().unwrap();
    assert!(started.success(), "{}", systemctl(&["status", &place.unit]));
    let process = place.running(&run).await;
    assert_eq!((noted_pid(&place), place.supervisor.peek(&run).unwrap()), (process.pid, Some(process.clone())));
    // systemd before 235 removes that directory whenever the agent ends.
    fs::remove_dir_all("/run/oblet-agent").unwrap();
    assert_eq!(place.supervisor.peek(&run).unwrap(), Some(process.clone()));
    assert_eq!(place.running(&run).await, process);
}

#[tokio::test]
#[ignore = "runs on a host of the lab, with its systemd: lab_systemd_does_what_the_direct_supervisor_does"]
async fn lab_a_file_that_an_earlier_life_has_left_is_not_believed() {
    let place = Place::new();
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    fs::create_dir_all("/run/oblet-agent").unwrap();
    fs::write(pid_file(&place), format!("{}\n", stranger.id())).unwrap();
    let run = place.run("service");
    let script = "until [ -e seen ]; do sleep 0.02; done";
    place.start(&run, &place.service(script)).await;
    let process = place.running(&run).await;
    assert_eq!((noted_pid(&place), main_pid(&place.unit)), (process.pid, process.pid));
    place.supervisor.stop(&run, Duration::ZERO).await.unwrap();
    let lives = stranger.try_wait().unwrap().is_none();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(lives, "nobody else is ended with the service");
}

/// Written by the version that kept proxies in the foreground and started them again after a failure only.
#[tokio::test]
#[ignore = "runs on a host of the lab, with its systemd: lab_systemd_does_what_the_direct_supervisor_does"]
async fn lab_a_unit_of_an_earlier_version_is_found_and_stopped() {
    let place = Place::new();
    let run = place.run("service");
    fs::create_dir_all(&run).unwrap();
    fs::write(run.join("claim"), format!("{{\"unit\":{:?}}}", place.unit)).unwrap();
    let name = run.file_name().unwrap().to_string_lossy();
    let text = format!(
        "[Unit]\nDescription=an earlier proxy\nX-Oblet-Run={name}\nStartLimitIntervalSec=300\nStartLimitBurst=10\n\n\
         [Service]\nType=exec\nExecStart=/bin/sleep 600\nEnvironmentFile=-/run/oblet-agent/secrets/{}.env\n\
         Restart=on-failure\nRestartSec=2\nKillMode=control-group\n\n[Install]\nWantedBy=multi-user.target\n",
        place.unit
    );
    fs::write(unit_file(&place), &text).unwrap();
    systemctl(&["daemon-reload"]);
    systemctl(&["enable", "--now", &place.unit]);
    let process = place.running(&run).await;
    assert_eq!(place.supervisor.peek(&run).unwrap(), Some(process.clone()));
    assert_eq!(place.supervisor.processes(&run).unwrap(), vec![process.clone()]);
    place.supervisor.keep(&run).await.unwrap();
    assert_eq!(fs::read_to_string(unit_file(&place)).unwrap(), text, "it is kept already");
    systemctl(&["stop", &place.unit]);
    assert_eq!(place.outcome(&run).await, RunOutcome::Signal(15));
    assert!(unit_file(&place).exists(), "a kept one is the administrator's to start again");
    systemctl(&["start", &place.unit]);
    let process = place.running(&run).await;
    place.supervisor.stop(&run, Duration::ZERO).await.unwrap();
    assert!(!process.is_alive() && !unit_file(&place).exists());
}
