//! Full disks: the state directory lies on a small file system of its own, which a filler takes to its last byte.

use crate::{
    lab::{Lab, PACKAGE, PATIENCE, command_lines, possible, wait_for},
    rest::Rest,
    small_disk::SmallDisk,
};
use serde_json::{Value, json};
use std::{fs, time::Instant};

/// Creates clusters until the store takes no more; answers the refusal and the tasks that were made before it.
async fn create_until_refused(rest: &Rest, made: &mut Vec<i64>) -> (u16, Value) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        // A long list, so that each request needs fresh pages.
        let servers = vec!["127.0.0.1:2881"; 250].join(";");
        let body = json!({
            "name": format!("filler{}", made.len()), "workMode": "RS_LIST", "password": "aaBB22__filler",
            "obLinks": [{"clusterName": "ob1", "obClusterId": 1, "username": "proxyro"}],
            "startupParameters": [{"name": "rootservice_list", "value": servers}],
        });
        let (status, answer) = rest.post("/api/v2/obproxy/clusters", &body).await.unwrap();
        if status != 200 {
            return (status, answer);
        }
        made.push(answer["data"]["id"].as_i64().unwrap());
    }
    panic!("a full disk refuses nothing: {} requests were taken", made.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_full_disk_of_the_coordinator_stops_new_work_and_loses_none() {
    if !possible() {
        return;
    }
    let mut lab = Lab::prepare(1);
    let directory = lab.directory.path().join("coordinator/state");
    let Some(disk) = SmallDisk::under(&directory, 160) else { return };
    lab.run().await;
    let cluster = lab.set_up(json!({})).await;
    // The task is held by its agent until the disk is full.
    lab.hosts[0].agent.as_ref().unwrap().pause();
    let id = lab.batch_add(cluster).await[0];
    disk.fill();
    let mut made = Vec::new();
    let (status, refusal) = create_until_refused(lab.rest(), &mut made).await;
    assert_eq!(status, 503, "{refusal}");
    assert!(refusal["error"]["message"].as_str().unwrap().contains("full"), "{refusal}");

    lab.hosts[0].agent.as_ref().unwrap().resume();
    let log = lab.directory.path().join("coordinator/coordinator.log");
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_to_string(&log).unwrap().contains("waiting for the store") {
        assert!(Instant::now() < deadline, "the engine does not wait for the store");
        let (status, refusal) = create_until_refused(lab.rest(), &mut made).await;
        assert_eq!(status, 503, "{refusal}");
    }
    let task = lab.get(&format!("/api/v2/tasks/instances/{id}")).await.unwrap();
    assert_eq!(task["data"]["status"], "RUNNING", "reading goes on, and so does the task: {task:#}");

    disk.make_room();
    for id in made.into_iter().chain([id]) {
        let task = lab.finished(id).await;
        assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
    }
    assert_eq!(lab.hosts[0].packages().trim(), PACKAGE);
    assert_eq!(lab.hosts[0].processes().len(), 1);
    assert_eq!(lab.hosts[0].count_in_logs("scriptlet ran once"), 1);
}

/// Waits for the end of a task that may need one retry; answers how many it needed.
async fn comes_through(lab: &Lab, id: i64) -> usize {
    let mut task = lab.finished(id).await;
    let mut retries = 0;
    if task["status"] == "FAILED" {
        retries = 1;
        let (status, answer) = lab.post(&format!("/api/v2/tasks/instances/{id}/retry"), &Value::Null).await;
        assert_eq!(status, 200, "{answer:#}");
        task = lab.finished(id).await;
    }
    assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
    retries
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_full_disk_of_an_agent_is_told_and_costs_one_retry_at_most() {
    if !possible() {
        return;
    }
    let mut lab = Lab::prepare(1);
    let Some(disk) = SmallDisk::under(&lab.hosts[0].directory.join("state"), 160) else { return };
    lab.run().await;
    let cluster = lab.set_up(json!({})).await;
    disk.fill();
    let id = lab.batch_add(cluster).await[0];
    let told = lab.told(id, "bytes left").await;
    assert!(told.contains("DISK_FULL"), "{told}");
    disk.make_room();
    // Whether it was waited for or failed: nothing was begun without room, so one decision at most is what it cost.
    let retries = comes_through(&lab, id).await;
    println!("retries: {retries}");
    assert_eq!(lab.hosts[0].packages().trim(), PACKAGE);
    assert_eq!(lab.hosts[0].processes().len(), 1);
    assert_eq!(lab.hosts[0].count_in_logs("scriptlet ran once"), 1, "the package was installed once");
}

/// The disk runs full while rpm installs: neither the journal nor the file with rpm's outcome can be written.
#[tokio::test(flavor = "multi_thread")]
async fn root_an_agent_whose_disk_runs_full_in_a_step_goes_on_when_there_is_room() {
    if !possible() {
        return;
    }
    let mut lab = Lab::prepare(1);
    let Some(disk) = SmallDisk::under(&lab.hosts[0].directory.join("state"), 160) else { return };
    lab.run().await;
    let package = lab.build_package_with("echo installing >> \"$HOME/../scriptlets\"; sleep 1");
    let cluster = lab.set_up_with(&package, json!({})).await;
    let id = lab.batch_add(cluster).await[0];
    let installing = lab.hosts[0].directory.join("scriptlets");
    wait_for("rpm", || installing.exists()).await;
    disk.fill();
    let database = lab.hosts[0].root().join("var/lib/rpm").display().to_string();
    let installs = |line: &String| line.starts_with("rpm ") && line.contains(" -iv ") && line.contains(&database);
    wait_for("the end of rpm", || !command_lines().values().any(installs)).await;
    disk.make_room();
    // rpm's outcome is lost for want of room, and then its effect is unknown: the operator decides, once.
    let retries = comes_through(&lab, id).await;
    println!("retries: {retries}");
    let installed = fs::read_to_string(&installing).unwrap().lines().count();
    assert!((1..=1 + retries).contains(&installed), "installed {installed} times with {retries} retries");
    assert_eq!(lab.hosts[0].packages().trim(), PACKAGE);
    assert_eq!(lab.hosts[0].processes().len(), 1);
}
