//! Promises that do not depend on who starts a process.

use crate::{
    place::{Place, is_systemd, supervisor, until},
    skip::skip,
    systemctl::kill,
};
use oblet::agent::host::{Kind, Launch, RunOutcome, RunState};
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    time::{Duration, Instant},
};

#[tokio::test]
async fn a_run_starts_once_and_its_exit_code_stays() {
    let place = Place::new();
    for (run, launch) in place.both("echo said; echo complained >&2; exit 3") {
        fs::write(place.path("log"), "before\n").unwrap();
        place.start(&run, &launch).await;
        assert_eq!(place.outcome(&run).await, RunOutcome::ExitCode(3));
        assert_eq!(place.read("log"), "before\nsaid\ncomplained\n");
        let again = Launch { arguments: vec!["-c".into(), "touch again".into()], ..launch };
        place.supervisor.start(&run, &again).await.unwrap();
        assert_eq!(supervisor().find(&run).await.unwrap(), RunState::Ended(RunOutcome::ExitCode(3)));
        assert!(!place.path("again").exists(), "a run starts once");
    }
}

#[tokio::test]
async fn what_the_starter_of_the_agent_left_open_is_kept_from_the_program() {
    let place = Place::new();
    let left_open = fs::File::create(place.path("left-open")).unwrap();
    rustix::io::fcntl_setfd(&left_open, rustix::io::FdFlags::empty()).unwrap();
    for (run, launch) in place.both("ls -l /proc/self/fd") {
        place.start(&run, &launch).await;
        assert_eq!(place.outcome(&run).await, RunOutcome::ExitCode(0));
        assert!(place.read("log").contains(" 2 -> "), "{}", place.read("log"));
        assert!(!place.read("log").contains("left-open"), "{}", place.read("log"));
    }
}

#[tokio::test]
async fn every_argument_arrives_as_it_was_given() {
    let place = Place::new();
    let odd = ["%i %%", "$HOME ${HOME} $$", r#"a "b" 'c' \d\x41"#, "", " blanks ", "two\nlines", "tab\there", ";", "é"];
    for (run, launch) in place.both("") {
        let is_job = matches!(launch.kind, Kind::Job);
        let print = r#"printf '[%s]' "$@""#;
        let mut launch = if is_job { place.job(print) } else { place.service(print) };
        launch.arguments.extend(is_job.then(|| "sh".to_owned()));
        launch.arguments.extend(odd.map(String::from));
        place.start(&run, &launch).await;
        assert_eq!(place.outcome(&run).await, RunOutcome::ExitCode(0));
        let foreground = if is_job || is_systemd() { "" } else { "[-N]" };
        assert_eq!(place.read("log"), odd.map(|argument| format!("[{argument}]")).concat() + foreground);
        fs::remove_file(place.path("log")).unwrap();
    }
}

/// Under systemd a service has begun when its process is known. One that ended before has no exit code that anybody could
/// learn, for it had no parent any more.
#[tokio::test]
async fn a_service_that_ends_at_once_was_not_started_or_says_how_it_ended() {
    let place = Place::new();
    let (background, foreground) = (place.run("background"), place.run("foreground"));
    let behind_it = Launch { arguments: vec!["-c".into(), "(exit 3)& wait".into()], ..place.hasty_service("") };
    place.start(&background, &behind_it).await;
    let outcome = place.outcome(&background).await;
    if is_systemd() {
        assert!(matches!(&outcome, RunOutcome::NotStarted(why) if why.contains("ended as soon as")), "{outcome:?}");
    } else {
        assert_eq!(outcome, RunOutcome::ExitCode(0));
    }
    // What did not even go to the background has a parent.
    let launch = Launch { arguments: vec!["-c".into(), "exit 3".into()], ..place.hasty_service("") };
    place.start(&foreground, &launch).await;
    assert_eq!(place.outcome(&foreground).await, RunOutcome::ExitCode(3));
}

#[tokio::test]
async fn a_signal_is_an_outcome() {
    let place = Place::new();
    for (run, launch) in place.both("kill -9 $$") {
        place.start(&run, &launch).await;
        assert_eq!(place.outcome(&run).await, RunOutcome::Signal(9));
    }
}

#[tokio::test]
async fn a_program_that_cannot_be_started_says_why() {
    let place = Place::new();
    for (run, launch) in place.both("") {
        place.start(&run, &Launch { program: "/nowhere/program".into(), ..launch }).await;
        let outcome = place.outcome(&run).await;
        assert!(matches!(&outcome, RunOutcome::NotStarted(why) if why.contains("No such")), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_run_that_was_looked_for_before_its_start_never_starts() {
    let place = Place::new();
    for (run, launch) in place.both("touch started") {
        fs::create_dir_all(&run).unwrap();
        assert_eq!(place.supervisor.find(&run).await.unwrap(), RunState::Nothing);
        assert!(place.supervisor.start(&run, &launch).await.is_err());
        assert_eq!(place.supervisor.find(&run).await.unwrap(), RunState::Nothing);
        assert!(!place.path("started").exists());
    }
}

#[tokio::test]
async fn a_look_at_the_processes_of_a_run_does_not_keep_it_from_its_start() {
    let place = Place::new();
    for (run, launch) in place.both("exec sleep 600") {
        fs::create_dir_all(&run).unwrap();
        assert_eq!(place.supervisor.peek(&run).unwrap(), None);
        assert!(place.supervisor.processes(&run).unwrap().is_empty());
        place.start(&run, &launch).await;
        place.running(&run).await;
        place.supervisor.stop(&run, Duration::ZERO).await.unwrap();
    }
}

#[tokio::test]
async fn a_run_outlives_its_supervisor_and_is_found_by_the_next_one() {
    let mut place = Place::new();
    for (run, launch) in place.both("echo up; read line < pipe; exit 5") {
        nix::unistd::mkfifo(&place.path("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        place.start(&run, &launch).await;
        let before = place.running(&run).await;
        assert_eq!(place.supervisor.peek(&run).unwrap(), Some(before.clone()));
        place.supervisor = supervisor();
        assert_eq!(place.running(&run).await, before);
        assert_eq!(place.supervisor.peek(&run).unwrap(), Some(before.clone()));
        fs::write(place.path("pipe"), "go on\n").unwrap();
        assert_eq!(place.outcome(&run).await, RunOutcome::ExitCode(5));
        assert_eq!(place.supervisor.peek(&run).unwrap(), None);
        assert!(!before.is_alive());
        fs::remove_file(place.path("pipe")).unwrap();
    }
}

#[tokio::test]
async fn stopping_asks_first() {
    let place = Place::new();
    for (run, launch) in place.both("trap 'exit 7' TERM; touch up; while :; do sleep 0.05; done") {
        place.start(&run, &launch).await;
        until("the program", || place.path("up").exists()).await;
        place.supervisor.stop(&run, Duration::from_secs(20)).await.unwrap();
        assert_eq!(place.outcome(&run).await, RunOutcome::ExitCode(7));
        fs::remove_file(place.path("up")).unwrap();
    }
}

#[tokio::test]
async fn stopping_insists_and_ends_children_too() {
    let place = Place::new();
    for (run, launch) in place.both("trap '' TERM; sleep 600 & echo $! > child; wait") {
        place.start(&run, &launch).await;
        until("the child", || place.read("child").ends_with('\n')).await;
        let child = place.read("child").trim().to_owned();
        let program = place.running(&run).await;
        place.supervisor.stop(&run, Duration::from_millis(200)).await.unwrap();
        assert!(!program.is_alive());
        let state = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "the child lives: {state}");
        let outcome = place.outcome(&run).await;
        assert!(matches!(outcome, RunOutcome::Signal(9) | RunOutcome::ExitCode(_)), "{outcome:?}");
        place.supervisor.stop(&run, Duration::ZERO).await.unwrap();
        fs::remove_file(place.path("child")).unwrap();
    }
}

#[tokio::test]
async fn stopping_what_never_began_is_no_failure() {
    let place = Place::new();
    place.supervisor.stop(&place.run("unknown"), Duration::ZERO).await.unwrap();
    assert_eq!(place.supervisor.find(&place.run("unknown")).await.unwrap(), RunState::Nothing);
}

#[tokio::test]
async fn a_program_gets_the_environment_of_its_launch_and_nothing_else() {
    let place = Place::new();
    let variables = ["PATH", "HOME", "OBPROXY_ROOT", "LD_LIBRARY_PATH"];
    let value = |name: &str| if name == "PATH" { "/usr/bin:/bin".into() } else { format!("/srv/a b/%n/{name}") };
    let environment: Vec<(String, String)> = variables.map(|name| (name.to_owned(), value(name))).into();
    for (run, launch) in place.both("exec sleep 600") {
        place.start(&run, &Launch { environment: environment.clone(), ..launch }).await;
        let process = place.running(&run).await;
        let held = || {
            let held = fs::read(format!("/proc/{}/environ", process.pid)).unwrap();
            String::from_utf8(held).unwrap().split_terminator('\0').map(String::from).collect::<Vec<_>>()
        };
        // Between fork and execution a process holds what its parent does.
        until("the program", || {
            fs::read_to_string(format!("/proc/{}/comm", process.pid)).is_ok_and(|name| name == "sleep\n")
        })
        .await;
        let held = held();
        for (name, value) in &environment {
            assert!(held.contains(&format!("{name}={value}")), "{name} is not in {held:?}");
        }
        let names = held.iter().map(|variable| variable.split('=').next().unwrap());
        // A shell adds these of its own accord.
        let mut known = vec!["PWD", "SHLVL", "_", "OLDPWD"];
        known.extend(variables);
        let strange: Vec<&str> = names.filter(|name| !known.contains(name)).collect();
        assert!(strange.is_empty(), "{strange:?}");
        assert_eq!(fs::metadata(&run).unwrap().permissions().mode() & 0o777, 0o700);
    }
}

#[tokio::test]
async fn root_starts_a_program_as_the_user_it_is_for() {
    if !nix::unistd::geteuid().is_root() {
        return skip("it needs root");
    }
    let place = Place::new();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    for (run, launch) in place.both("exec sleep 600") {
        let user = (nobody.uid.as_raw(), nobody.gid.as_raw());
        place.start(&run, &Launch { user: Some(user), directory: "/".into(), ..launch }).await;
        let process = place.running(&run).await;
        until("the change of the user", || {
            let owner = fs::metadata(format!("/proc/{}", process.pid)).unwrap();
            (owner.uid(), owner.gid()) == user
        })
        .await;
    }
}

#[tokio::test]
async fn a_kept_service_is_started_again_by_its_shim_until_it_is_stopped() {
    if is_systemd() {
        // There a unit does the same: `restarts`.
        return;
    }
    let place = Place::new();
    let run = place.run("service");
    place.start(&run, &place.service("echo x >> starts; exec sleep 600")).await;
    let mut process = place.running(&run).await;
    place.supervisor.keep(&run).await.unwrap();
    until("the first start", || place.read("starts") == "x\n").await;
    for starts in ["x\nx\n", "x\nx\nx\n"] {
        kill(&process);
        until("another start", || place.read("starts") == starts).await;
        // The shim notes the process after it has begun.
        let end = Instant::now() + Duration::from_secs(30);
        process = loop {
            match place.supervisor.find(&run).await.unwrap() {
                RunState::Running(other) if other != process => break other,
                state => assert!(state.lives() && Instant::now() < end, "{state:?}"),
            }
        };
    }
    place.supervisor.stop(&run, Duration::ZERO).await.unwrap();
    assert!(!process.is_alive());
    assert!(matches!(place.outcome(&run).await, RunOutcome::Signal(_)));
    assert_eq!(place.read("starts"), "x\nx\nx\n", "a stop is for good");
}
