//! Removing proxies and clusters: what is asked for, what is refused, and what is asked for again.

use crate::support::{Lab, OBPROXY};
use axum::body::Body;
use oblet::{
    coordinator::store::task::{self, TaskId},
    steps::{CoordinatorStep, Step},
};
use serde_json::{Value, json};

const CLUSTER: &str = "/api/v2/obproxy/clusters/1";

fn names(task: &Value) -> Vec<(&str, i64)> {
    let subtasks = task["subtasks"].as_array().unwrap();
    let mut names: Vec<_> = subtasks
        .iter()
        .map(|subtask| (subtask["name"].as_str().unwrap(), subtask["parallelIdx"].as_i64().unwrap()))
        .collect();
    names.sort_unstable();
    names
}

/// A lab with a proxy on each of two hosts.
async fn two_proxies() -> Lab {
    let lab = Lab::furnished().await;
    for (host, id) in [(1, 1), (2, 2)] {
        assert_eq!(lab.serving_proxy(host, 2883).await, id);
    }
    lab
}

#[tokio::test]
async fn each_proxy_has_a_branch_and_a_host_that_is_gone_is_not_asked() {
    let lab = two_proxies().await;
    let path = format!("{CLUSTER}/obproxies/1,2?skipHostOperationServerIds=2&keepLogs=false");
    let task = lab.delete(&path).await.data();
    assert_eq!(
        names(&task),
        [
            ("Delete obproxy info", -1),
            ("Finish node", -1),
            ("Offline obproxy exporter", 0),
            ("Prepare offline obproxy", 0),
            ("Prepare offline obproxy", 1),
            ("Start node", -1),
            ("Stop and uninstall obproxy", 0),
            ("Unreserve host", -1),
            ("Wait node", -1),
        ]
    );
    assert_eq!(task["context"]["listMap"], json!({"obproxy_server_ids": ["1", "2"], "host_ids": ["1", "2"]}));
    let refused = lab.delete(&format!("{CLUSTER}/obproxies/1")).await;
    assert_eq!(refused.status, 409, "{}", refused.text);
    assert!(refused.text.contains("is reserved by task"), "{}", refused.text);
    lab.finish(&task).await;
}

#[tokio::test]
async fn a_cluster_goes_with_all_its_proxies() {
    let lab = two_proxies().await;
    let task = lab.delete(CLUSTER).await.data();
    assert_eq!(task["name"], "Offline obproxy");
    assert_eq!(task["context"]["stringMap"]["obproxy_need_delete_cluster"], "true");
    assert_eq!(names(&task).iter().filter(|(name, _)| *name == "Stop and uninstall obproxy").count(), 2);
    let body = json!({"hostIds": [1], "sqlPort": 3883, "exporterPort": 3884, "version": OBPROXY});
    assert_eq!(lab.post(&format!("{CLUSTER}/obproxies/batchAdd"), body).await.status, 409, "no proxy comes meanwhile");
}

#[tokio::test]
async fn a_cluster_without_proxies_goes() {
    let lab = Lab::furnished().await;
    let task = lab.delete(CLUSTER).await.data();
    let expected = [
        ("Delete obproxy info", -1),
        ("Finish node", -1),
        ("Start node", -1),
        ("Unreserve host", -1),
        ("Wait node", -1),
    ];
    assert_eq!(names(&task), expected);
}

#[tokio::test]
async fn the_newer_form_of_the_request_makes_the_same_task() {
    let lab = two_proxies().await;
    let body = json!({"obproxyServerIds": [2], "skipHostOperationServerIds": [], "clientToken": "12345678"});
    let task = lab.post(&format!("{CLUSTER}/servers/delete"), body.clone()).await.data();
    assert_eq!((&task["name"], &task["context"]["listMap"]["host_ids"]), (&json!("Offline obproxy"), &json!(["2"])));
    let again = lab.post(&format!("{CLUSTER}/servers/delete"), body).await.data();
    assert_eq!(again["id"], task["id"]);
}

#[tokio::test]
async fn a_dry_run_shows_the_task_and_removes_nothing() {
    let lab = two_proxies().await;
    let task = lab.delete(&format!("{CLUSTER}/obproxies/1?dryRun=true")).await.data();
    assert_eq!(names(&task).len(), 8);
    let proxies = lab.get(CLUSTER).await.data()["obproxies"].clone();
    assert!(proxies.as_array().unwrap().iter().all(|proxy| proxy["status"] == "RUNNING"), "{proxies}");
    lab.delete(&format!("{CLUSTER}/obproxies/1")).await.data();
}

#[tokio::test]
async fn a_request_with_the_same_key_makes_one_task() {
    let lab = two_proxies().await;
    let ask = async |query: &str| {
        let request = Lab::signed("DELETE", &format!("{CLUSTER}/obproxies/1{query}")).header("Idempotency-Key", "once");
        lab.send(request.body(Body::empty()).unwrap()).await
    };
    let first = ask("").await.data();
    assert_eq!(ask("").await.data()["id"], first["id"]);
    let other = ask("?keepLogs=false").await;
    assert_eq!(other.status, 409, "{}", other.text);
    assert!(other.text.contains("was used at"), "{}", other.text);
}

/// Its status was read when the task was made.
#[tokio::test]
async fn a_proxy_that_never_ran_is_shown_as_before_after_a_rollback() {
    let lab = Lab::furnished().await;
    let body = json!({"hostIds": [1], "sqlPort": 2883, "exporterPort": 2884, "version": OBPROXY});
    let added = lab.post(&format!("{CLUSTER}/obproxies/batchAdd"), body).await.data();
    lab.finish(&added["contents"][0]).await;
    let task = lab.delete(&format!("{CLUSTER}/obproxies/1")).await.data();
    let id = TaskId(task["id"].as_i64().unwrap());
    let mut connection = lab.store.readers().acquire().await.unwrap();
    let plan = task::get(&mut connection, id).await.unwrap().unwrap().plan;
    let before: Vec<String> = plan
        .nodes
        .into_iter()
        .filter_map(|node| match node.step {
            Step::Coordinator(CoordinatorStep::PrepareObproxyOffline(step)) => Some(step.before),
            _ => None,
        })
        .collect();
    assert_eq!(before, ["CREATING"]);
}

#[tokio::test]
async fn bad_requests_are_refused_and_nothing_changes() {
    let lab = two_proxies().await;
    let other = lab.post("/api/v2/obproxy/clusters", json!({"name": "second", "obLinks": []})).await.data();
    lab.finish(&other).await;
    let cases = [
        ("/api/v2/obproxy/clusters/9", 404, "ODP21001"),
        ("/api/v2/obproxy/clusters/9/obproxies/1", 404, "ODP21001"),
        ("/api/v2/obproxy/clusters/1/obproxies/9", 404, "ODP21002"),
        ("/api/v2/obproxy/clusters/2/obproxies/1", 400, "ODP21015"),
        ("/api/v2/obproxy/clusters/1/obproxies/1,1", 400, "COM10001"),
        ("/api/v2/obproxy/clusters/1/obproxies/1,", 400, "COM10001"),
        ("/api/v2/obproxy/clusters/1/obproxies/one", 400, "COM10001"),
        ("/api/v2/obproxy/clusters/one/obproxies/1", 400, "COM10001"),
        ("/api/v2/obproxy/clusters/1/obproxies/1?keepLogs=perhaps", 400, "COM10001"),
        ("/api/v2/obproxy/clusters/1/obproxies/1?skipHostOperationServerIds=2", 400, "COM10001"),
        ("/api/v2/obproxy/clusters/1?skipHostOperationServerIds=x", 400, "COM10001"),
        ("/api/v2/obproxy/clusters/1/obproxies/1?dryRun=perhaps", 400, "COM10001"),
    ];
    for (path, status, code) in cases {
        let answer = lab.delete(path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        assert!(answer.json()["error"]["message"].as_str().unwrap().starts_with(code), "{path}: {}", answer.text);
    }
    let bodies = [
        json!({}),
        json!({"obproxyServerIds": []}),
        json!({"obproxyServerIds": (1..=201).collect::<Vec<_>>()}),
        json!({"obproxyServerIds": ["1; reboot"]}),
        json!({"obproxyServerIds": [1], "skipHostOperationServerIds": [2]}),
        json!({"obproxyServerIds": [1], "keepLog": true}),
    ];
    for body in bodies {
        let answer = lab.post(&format!("{CLUSTER}/servers/delete"), body.clone()).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
    }
    let proxies = lab.get(CLUSTER).await.data()["obproxies"].as_array().unwrap().len();
    assert_eq!(proxies, 2);
}
