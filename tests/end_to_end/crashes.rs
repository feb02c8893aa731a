use crate::lab::{Lab, PACKAGE, possible};
use serde_json::json;
use std::time::Duration;

/// Pseudo-random, so that a failing moment can be had again.
fn moments(seed: u64) -> impl Iterator<Item = Duration> {
    let mut state = seed;
    std::iter::from_fn(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some(Duration::from_millis((state >> 33) % 1200))
    })
}

async fn survive(seed: u64, rounds: usize, kill: fn(&mut Lab), revive: fn(&mut Lab)) {
    if !possible() {
        return;
    }
    for (round, moment) in moments(seed).take(rounds).enumerate() {
        println!("seed {seed}, round {round}: killed after {moment:?}");
        let mut lab = Lab::start(1).await;
        let cluster = lab.set_up(json!({})).await;
        let id = lab.batch_add(cluster).await[0];
        tokio::time::sleep(moment).await;
        kill(&mut lab);
        revive(&mut lab);
        let task = lab.finished(id).await;
        assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
        assert_eq!(lab.hosts[0].packages().trim(), PACKAGE);
        assert_eq!(lab.hosts[0].processes().len(), 1, "one proxy and nothing else");
        assert_eq!(lab.hosts[0].count_in_logs("scriptlet ran once"), 1, "the package was installed exactly once");
    }
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
