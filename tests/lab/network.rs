use crate::fleet::{Fleet, POLL, UNIT, possible};
use std::time::{Duration, Instant};

/// The scriptlet waits for a file, so that a test decides when the installation ends.
const GATE: &str = "touch /root/begun; for i in $(seq 1200); do [ -e /root/go ] && exit 0; sleep 0.1; done; exit 1";

#[tokio::test(flavor = "multi_thread")]
async fn lab_a_host_cut_off_for_a_minute_in_the_middle_of_an_install_holds_up_no_other() {
    if !possible() {
        return;
    }
    let fleet = Fleet::raise(3).await;
    fleet.upload_package(GATE).await;
    let cluster = fleet.create_cluster().await;
    let tasks = fleet.batch_add(cluster, &["h1", "h2", "h3"]).await;
    for host in fleet.hosts() {
        fleet.wait_on(host, "test -e /root/begun").await;
    }
    fleet.lab(&["cut", "h1"]);
    let cut = Instant::now();
    // The install goes on behind the cut and ends there.
    for host in fleet.hosts() {
        fleet.on(host, "touch /root/go");
    }
    for id in &tasks[1..] {
        fleet.succeeded(*id).await;
    }
    let mut waiting = fleet.task(tasks[0]).await;
    while cut.elapsed() < Duration::from_secs(60) {
        assert_eq!(waiting["status"], "RUNNING", "{waiting:#}");
        tokio::time::sleep(POLL).await;
        waiting = fleet.task(tasks[0]).await;
    }
    assert!(waiting.to_string().contains(&fleet.address("h1")), "the task names the host: {waiting:#}");
    fleet.lab(&["join", "h1"]);
    fleet.succeeded(tasks[0]).await;
    let count = fleet.on("h1", "rpm -q obproxy | wc -l");
    assert_eq!(count.trim(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_half_a_second_late_and_one_packet_in_twenty_lost_is_slow_and_right() {
    if !possible() {
        return;
    }
    let fleet = Fleet::raise(2).await;
    fleet.upload_package("true").await;
    let cluster = fleet.create_cluster().await;
    fleet.lab(&["slow", "h1", "250", "5"]);
    for id in fleet.batch_add(cluster, &["h1", "h2"]).await {
        fleet.succeeded(id).await;
    }
    assert_eq!(fleet.property("h1", UNIT, "NRestarts"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_a_host_that_is_gone_for_good_is_named_and_its_task_can_be_ended() {
    if !possible() {
        return;
    }
    let fleet = Fleet::raise(3).await;
    fleet.upload_package(GATE).await;
    let cluster = fleet.create_cluster().await;
    let tasks = fleet.batch_add(cluster, &["h1", "h2", "h3"]).await;
    fleet.wait_on("h1", "test -e /root/begun").await;
    fleet.lab(&["plug", "h1"]);
    for host in ["h2", "h3"] {
        fleet.wait_on(host, "touch /root/go").await;
    }
    for id in &tasks[1..] {
        fleet.succeeded(*id).await;
    }
    let task = fleet.misses(tasks[0], "h1").await;
    assert_eq!(task["status"], "RUNNING", "{task:#}");
}
