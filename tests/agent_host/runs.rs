//! Runs of the supervisor, real processes under the real shim.

use crate::place::{launch, supervisor, until};
use oblet::agent::host::{Launch, RunOutcome, RunState, Supervisor as _};
use std::{fs, time::Duration};

#[tokio::test]
async fn a_run_is_found_followed_and_its_outcome_kept() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let supervisor = supervisor();
    supervisor.start(&run, &launch(dir.path(), "echo $SECRET; exit 3")).await.unwrap();
    until("the outcome", || supervisor.outcome(&run).unwrap().is_some()).await;
    assert_eq!(supervisor.outcome(&run).unwrap(), Some(RunOutcome::ExitCode(3)));
    assert_eq!(fs::read_to_string(dir.path().join("log")).unwrap(), "not-to-be-seen\n");
    for file in fs::read_dir(&run).unwrap() {
        assert!(!fs::read_to_string(file.unwrap().path()).unwrap().contains("not-to-be-seen"));
    }
    assert!(supervisor.start(&run, &launch(dir.path(), "touch again")).await.is_ok());
    assert!(!dir.path().join("again").exists(), "a run starts once");
}

#[tokio::test]
async fn stopping_ends_the_whole_session_even_if_it_does_not_listen() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let supervisor = supervisor();
    let script = "trap '' TERM; sleep 600 & echo $! > child; wait; wait";
    supervisor.start(&run, &launch(dir.path(), script)).await.unwrap();
    until("the child", || fs::read_to_string(dir.path().join("child")).is_ok_and(|text| text.ends_with('\n'))).await;
    let RunState::Running(program) = supervisor.find(&run).unwrap() else { panic!("it does not run") };
    supervisor.stop(&run, Duration::from_millis(200)).await.unwrap();
    assert!(!program.is_alive());
    assert!(matches!(supervisor.find(&run).unwrap(), RunState::Ended(RunOutcome::Signal(9) | RunOutcome::ExitCode(_))));
    supervisor.stop(&run, Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_late_shim_cannot_start_what_recovery_gave_up() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    fs::create_dir(&run).unwrap();
    let supervisor = supervisor();
    assert_eq!(supervisor.find(&run).unwrap(), RunState::Nothing);
    assert!(supervisor.start(&run, &launch(dir.path(), "touch started")).await.is_err());
    assert!(!dir.path().join("started").exists());
    assert_eq!(supervisor.find(&run).unwrap(), RunState::Nothing);
}

#[tokio::test]
async fn a_program_that_cannot_be_started_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let supervisor = supervisor();
    let missing = Launch { program: "/nowhere/program".into(), ..launch(dir.path(), "") };
    supervisor.start(&run, &missing).await.unwrap();
    assert!(matches!(supervisor.outcome(&run).unwrap(), Some(RunOutcome::NotStarted(why)) if why.contains("No such")));
}
