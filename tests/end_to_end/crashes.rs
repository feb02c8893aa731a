use crate::lab::{Lab, PACKAGE, PATIENCE, possible};
use serde_json::json;
use std::time::{Duration, Instant};

/// Pseudo-random, so that a failing moment can be had again: how many subtasks have begun, and how long ago the last did.
fn moments(seed: u64) -> impl Iterator<Item = (usize, Duration)> {
    let mut state = seed;
    std::iter::from_fn(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some((1 + (state >> 33) as usize % BEGUN, Duration::from_millis((state >> 48) % 40)))
    })
}

/// Of twelve, so that there is something left to do.
const BEGUN: usize = 11;

/// How many subtasks of the task have begun, and whether one runs.
async fn progress(lab: &Lab, id: i64) -> (usize, bool) {
    let task = lab.get(&format!("/api/v2/tasks/instances/{id}")).await.unwrap();
    let statuses: Vec<_> = task["data"]["subtasks"].as_array().unwrap().iter().map(|s| s["status"].clone()).collect();
    let begun = statuses.iter().filter(|status| **status == "RUNNING" || **status == "SUCCESSFUL").count();
    (begun, statuses.iter().any(|status| status == "RUNNING"))
}

async fn survive(seed: u64, rounds: usize, kill: fn(&mut Lab), revive: fn(&mut Lab)) {
    if !possible() {
        return;
    }
    let mut hits = 0;
    for (round, (begun, later)) in moments(seed).take(rounds).enumerate() {
        let mut lab = Lab::start(1).await;
        let cluster = lab.set_up(json!({})).await;
        let id = lab.batch_add(cluster).await[0];
        let deadline = Instant::now() + PATIENCE;
        while progress(&lab, id).await.0 < begun {
            assert!(Instant::now() < deadline, "the task makes no progress");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(later).await;
        let (begun, runs) = progress(&lab, id).await;
        kill(&mut lab);
        println!("seed {seed}, round {round}: killed after {begun} subtasks had begun; one ran: {runs}");
        hits += usize::from(runs);
        revive(&mut lab);
        let task = lab.finished(id).await;
        assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
        assert_eq!(lab.hosts[0].packages().trim(), PACKAGE);
        assert_eq!(lab.hosts[0].processes().len(), 1, "one proxy and nothing else");
        assert_eq!(lab.hosts[0].count_in_logs("scriptlet ran once"), 1, "the package was installed exactly once");
    }
    assert!(hits * 3 >= rounds * 2, "{hits} of {rounds} blows fell while something ran");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_loses_and_repeats_nothing() {
    let kill = |lab: &mut Lab| lab.hosts[0].agent.as_mut().unwrap().kill();
    survive(7, 10, kill, |lab| lab.hosts[0].start_agent()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_coordinator_loses_and_repeats_nothing() {
    let kill = |lab: &mut Lab| lab.coordinator.as_mut().unwrap().kill();
    survive(11, 10, kill, Lab::start_coordinator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_stopped_and_started_goes_on() {
    let stop = |lab: &mut Lab| lab.hosts[0].agent.as_mut().unwrap().stop();
    survive(13, 3, stop, |lab| lab.hosts[0].start_agent()).await;
}
