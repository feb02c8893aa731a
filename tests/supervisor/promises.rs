//! Promises that do not depend on who starts a process.

use crate::place::{Place, SECRET, supervisor, until};
use oblet::agent::host::{Launch, RunOutcome, RunState};
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    time::Duration,
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
async fn every_argument_arrives_as_it_was_given() {
    let place = Place::new();
    let odd = ["%i %%", "$HOME ${HOME} $$", r#"a "b" 'c' \d\x41"#, "", " blanks ", "two\nlines", "tab\there", ";", "é"];
    for (run, launch) in place.both("") {
        let mut arguments = vec!["-c".to_owned(), r#"printf '[%s]' "$@""#.to_owned(), "sh".to_owned()];
        arguments.extend(odd.map(String::from));
        place.start(&run, &Launch { arguments, ..launch }).await;
        assert_eq!(place.outcome(&run).await, RunOutcome::ExitCode(0));
        assert_eq!(place.read("log"), odd.map(|argument| format!("[{argument}]")).concat());
        fs::remove_file(place.path("log")).unwrap();
    }
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
async fn a_program_gets_its_own_environment_and_no_secret_gets_into_a_file() {
    let place = Place::new();
    let [(job_run, job), (service_run, service)] = place.both("/usr/bin/env; exec sleep 600");
    place.start(&job_run, &Launch { arguments: vec!["-c".into(), "exec /usr/bin/env".into()], ..job }).await;
    assert_eq!(place.outcome(&job_run).await, RunOutcome::ExitCode(0));
    // A shell of its own accord adds the last three.
    let names = place.read("log").lines().map(|line| line.split('=').next().unwrap().to_owned()).collect::<Vec<_>>();
    let strange = names.iter().find(|name| !["PATH", "PWD", "SHLVL", "_", "OLDPWD"].contains(&name.as_str()));
    assert_eq!(strange, None, "a job has exactly the environment that it was given");

    place.start(&service_run, &service).await;
    until("the environment", || place.read("log").contains(&format!("SECRET={SECRET}\n"))).await;
    for file in fs::read_dir(&service_run).unwrap() {
        assert!(!fs::read_to_string(file.unwrap().path()).unwrap().contains(SECRET));
    }
    assert_eq!(fs::metadata(&service_run).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn root_starts_a_program_as_the_user_it_is_for() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: this test needs root");
        return;
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
