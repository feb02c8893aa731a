//! A host is added by a task of its own, and is of no use before that task is SUCCESSFUL.

use crate::support::{Lab, OBPROXY};
use serde_json::{Value, json};

const CREATE: &str = "/api/v2/compute/hosts/batchCreate";
const BATCH_ADD: &str = "/api/v2/obproxy/clusters/1/obproxies/batchAdd";

fn hosts(addresses: &[&str]) -> Value {
    let list: Vec<Value> = addresses.iter().map(|address| json!({"innerIpAddress": address})).collect();
    json!({"hostBasicDataList": list, "alias": "db", "monagentPort": 9999})
}

fn proxies(host: i64) -> Value {
    json!({"hostIds": [host], "sqlPort": 2883, "exporterPort": 2884, "version": OBPROXY})
}

#[tokio::test]
async fn each_host_gets_a_task_that_checks_it() {
    let lab = Lab::new().await;
    let made = lab.post(CREATE, hosts(&["192.0.2.1", "192.0.2.2"])).await.data();
    let tasks = made["contents"].as_array().unwrap();
    assert_eq!(tasks.len(), 2);
    for (task, host) in tasks.iter().zip(1..) {
        assert_eq!((&task["name"], &task["hostId"]), (&json!("Prepare host"), &json!(host)));
        let subtasks = task["subtasks"].as_array().unwrap().iter();
        let shape: Vec<_> = subtasks
            .map(|subtask| json!([subtask["seriesId"], subtask["name"], subtask["timeout"], subtask["status"]]))
            .collect();
        let expected = json!([
            [1, "Pre check for create host", 1800, "READY"],
            [5, "Check host", 300, "PENDING"],
            [6, "Check if command exists", 300, "PENDING"],
            [4, "Update host status", 1800, "PENDING"],
        ]);
        assert_eq!(json!(shape), expected);
        assert!(lab.engine.woken.lock().unwrap().contains(&task["id"].as_i64().unwrap()));
    }
    let host = lab.get("/api/v2/compute/hosts/2").await.data();
    let shown = json!([host["status"], host["innerIpAddress"], host["alias"], host["monagentPort"]]);
    assert_eq!(shown, json!(["NEW", "192.0.2.2", "db", 9999]));
    assert!(host.get("hostAgentStatus").is_none());
}

#[tokio::test]
async fn a_host_that_is_not_prepared_takes_no_proxy_and_is_no_target() {
    let lab = Lab::furnished().await;
    let task = lab.add_hosts(&["192.0.2.3"]).await.data()["contents"][0].take();
    let refused = lab.post(BATCH_ADD, proxies(3)).await;
    assert_eq!(refused.status, 409);
    let told = format!(
        "CMP07006: the host 3 (192.0.2.3) is NEW and cannot be used yet: host 3 is reserved by task {}",
        task["id"]
    );
    assert!(refused.text.contains(&told), "{}", refused.text);
    let agents = lab.get("/api/v2/prometheus/targets?job=oblet-agent").await;
    assert!(agents.text.contains("192.0.2.2") && !agents.text.contains("192.0.2.3"), "{}", agents.text);
}

#[tokio::test]
async fn the_same_request_again_adds_no_host_twice() {
    let lab = Lab::new().await;
    let send = async |body| lab.post_with(CREATE, &[("Idempotency-Key", "k")], body).await;
    let first = send(hosts(&["192.0.2.1"])).await.data();
    assert_eq!(send(hosts(&["192.0.2.1"])).await.data(), first);
    assert_eq!(send(hosts(&["192.0.2.2"])).await.status, 409, "the key is used");
    assert_eq!(lab.get("/api/v2/compute/hosts").await.data()["page"]["totalElements"], 1);
    let mut token = hosts(&["192.0.2.2"]);
    token["clientToken"] = json!("token-of-a-client");
    let first = lab.post(CREATE, token.clone()).await.data();
    assert_eq!(lab.post(CREATE, token).await.data(), first);
}

#[tokio::test]
async fn a_trial_makes_neither_host_nor_task() {
    let lab = Lab::new().await;
    let planned = lab.post(&format!("{CREATE}?dryRun=true"), hosts(&["192.0.2.1"])).await.data();
    assert_eq!(planned["contents"][0]["subtasks"].as_array().unwrap().len(), 4);
    assert!(planned["contents"][0].get("id").is_none());
    assert_eq!(lab.get("/api/v2/compute/hosts").await.data()["page"]["totalElements"], 0);
}

#[tokio::test]
async fn a_host_whose_task_failed_can_be_deleted_once_nothing_holds_it() {
    let lab = Lab::new().await;
    let task = lab.add_hosts(&["192.0.2.1"]).await.data()["contents"][0].take();
    lab.begin(&task).await;
    lab.fail(&task, 0).await;
    let held = lab.delete("/api/v2/compute/hosts/1").await;
    assert_eq!(held.status, 409);
    assert!(held.text.contains("roll it back"), "{}", held.text);
    lab.post(&format!("/api/v2/tasks/instances/{}/releaseLocks", task["id"]), json!({})).await.data();
    assert_eq!(lab.delete("/api/v2/compute/hosts/1").await.status, 200);
    lab.add_hosts(&["192.0.2.1"]).await.data();
}
