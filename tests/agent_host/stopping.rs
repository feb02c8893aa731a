//! Cancellations of programs that do not want to end, and what is left of runs.

use crate::place::{PACKAGE, Place, launch, rpm_is_missing, start_step, supervisor, until};
use oblet::{
    agent::step::{Carrier as _, StepContext},
    graph::Effect,
    steps::AgentStep,
};
use std::{fs, path::Path, time::Duration};

/// A program that notes SIGTERM and goes on, with children of its session that do not even note it.
const DEAF: &str = r#"
( trap '' TERM; sleep 600 & echo $! >> pids; wait ) &
echo $! >> pids
echo $$ >> pids
trap 'echo asked >> asked' TERM
echo ready > ready
while :; do wait; done
"#;

/// The processes of [`DEAF`] that still live.
fn living(dir: &Path) -> Vec<String> {
    let pids = fs::read_to_string(dir.join("pids")).unwrap();
    assert_eq!(pids.lines().count(), 3, "{pids}");
    let lives = |pid: &&str| {
        // The state stands behind the name of the program, which is in brackets.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    };
    pids.lines().filter(lives).map(String::from).collect()
}

/// Cancels the step once the program of `dir` runs, and lets its grace pass once it was asked to end.
async fn cancel(context: &StepContext, dir: &Path, grace: Duration) {
    let three = || fs::read_to_string(dir.join("pids")).is_ok_and(|pids| pids.lines().count() == 3);
    until("the program", || dir.join("ready").exists() && three()).await;
    assert_eq!(living(dir).len(), 3);
    context.cancel.cancel();
    until("the request to end", || dir.join("asked").exists()).await;
    assert_eq!(living(dir).len(), 3);
    tokio::time::pause();
    tokio::time::advance(grace).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_canceled_rpm_that_does_not_listen_is_killed_with_all_its_children() {
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n*--initdb*) exec touch \"$2/rpmdb.sqlite\" ;;\n*--qf*) exit 0 ;;\nesac\ncd \"$HOME\"\n{DEAF}"
    );
    let place = Place::with_rpm(&script);
    let step = place.put(PACKAGE, "#!/bin/sh\n");
    let (context, _) = place.context("r1", None);
    let state = place.dir.path().join("state");
    let running = place.host.execute(&step, &context);
    let (result, ()) = tokio::join!(running, cancel(&context, &state, Duration::from_secs(61)));
    let error = result.unwrap_err();
    assert_eq!((error.reason, error.effect), ("CANCELED", Effect::None), "{}", error.message);
    assert!(living(&state).is_empty());
}

#[tokio::test]
async fn a_canceled_proxy_that_does_not_listen_is_killed_with_all_its_children() {
    if rpm_is_missing() {
        return;
    }
    let place = Place::new();
    place.execute(&place.put(PACKAGE, format!("#!/bin/sh\n{DEAF}")), "i", None).await.result.unwrap();
    let start = start_step();
    let dir = place.dir.path().join("root/run/obproxy").join(start.sql_port.to_string());
    let step = AgentStep::StartObproxy(start);
    let (context, _) = place.context("r1", None);
    let running = place.host.execute(&step, &context);
    let (result, ()) = tokio::join!(running, cancel(&context, &dir, Duration::from_secs(11)));
    let error = result.unwrap_err();
    assert_eq!(error.reason, "CANCELED", "{}", error.message);
    assert_ne!(error.effect, Effect::None, "its directory is there");
    assert!(living(&dir).is_empty());
}

#[tokio::test]
async fn a_step_that_was_canceled_in_time_starts_nothing() {
    let place = Place::with_rpm("#!/bin/sh\ncase \"$*\" in *--qf*) exit 0 ;; esac\ntouch \"$HOME/started\"\n");
    let step = place.put(PACKAGE, "#!/bin/sh\n");
    fs::create_dir_all(place.dir.path().join("root/var/lib/rpm")).unwrap();
    fs::write(place.dir.path().join("root/var/lib/rpm/rpmdb.sqlite"), "").unwrap();
    let (context, _) = place.context("r1", None);
    context.cancel.cancel();
    let error = place.host.execute(&step, &context).await.unwrap_err();
    assert_eq!((error.reason, error.effect), ("CANCELED", Effect::None), "{}", error.message);
    assert!(!place.dir.path().join("state/started").exists());
}

#[tokio::test]
async fn a_question_to_rpm_does_not_hold_up_a_cancellation() {
    let place = Place::with_rpm("#!/bin/sh\ntouch \"$HOME/asked\"\nexec sleep 600\n");
    let step = place.put(PACKAGE, "#!/bin/sh\n");
    fs::create_dir_all(place.dir.path().join("root/var/lib/rpm")).unwrap();
    fs::write(place.dir.path().join("root/var/lib/rpm/rpmdb.sqlite"), "").unwrap();
    let (context, _) = place.context("r1", None);
    let asked = async {
        until("the question", || place.dir.path().join("state/asked").exists()).await;
        context.cancel.cancel();
    };
    let running = tokio::time::timeout(Duration::from_secs(30), place.host.execute(&step, &context));
    let (result, ()) = tokio::join!(running, asked);
    assert_eq!(result.unwrap().unwrap_err().reason, "CANCELED");
}

#[tokio::test]
async fn files_of_runs_that_ended_are_let_go_and_those_of_a_living_one_stay() {
    let place = Place::new();
    let runs = place.dir.path().join("state/runs");
    assert!(place.host.runs().is_empty());
    supervisor().start(&runs.join("ended"), &launch(place.dir.path(), "exit 0")).await.unwrap();
    until("the outcome", || runs.join("ended/outcome").exists()).await;
    supervisor().start(&runs.join("living"), &launch(place.dir.path(), "exec sleep 600")).await.unwrap();
    fs::create_dir(runs.join("never-begun")).unwrap();
    let mut names = place.host.runs();
    names.sort();
    assert_eq!(names, ["ended", "living", "never-begun"]);
    for name in names {
        place.host.forget_run(&name).await;
    }
    assert_eq!(place.host.runs(), ["living"]);
    supervisor().stop(&runs.join("living"), Duration::ZERO).await.unwrap();
    place.host.forget_run("living").await;
    assert!(place.host.runs().is_empty());
}
