//! What is made can be read back, listed, used by Prometheus, and deleted.

use crate::support::{Lab, OBPROXY, package};
use axum::{body::Body, http::Request};
use oblet::{
    coordinator::store::{
        obproxy::{self, ObproxyStatus},
        task::{self, LogPosition, TaskId},
    },
    graph::{Effect, Failure, NodeIndex},
};
use serde_json::{Value, json};

fn installation(hosts: &[i64]) -> Value {
    json!({"hostIds": hosts, "sqlPort": 2883, "exportPort": 2884, "version": "obproxy-1.9.1.1-1919579"})
}

#[tokio::test]
async fn hosts_are_described_by_their_agents() {
    let lab = Lab::furnished().await;
    let hosts = lab.get("/api/v2/compute/hosts?keyword=192.0.2.2").await.data();
    let host = &hosts["contents"][0];
    assert_eq!(host["innerIpAddress"], "192.0.2.2");
    assert_eq!(host["architecture"], "x86_64");
    assert_eq!(host["mgragentPort"], 62898);
    assert_eq!(host["monagentPort"], 9100);
    assert_eq!((&host["status"], &host["hostId"]), (&json!("AVAILABLE"), &json!(2)));
    assert_eq!((&host["hostAgentStatus"], &host["hostAgentId"]), (&json!("AVAILABLE"), &json!(2)));
    assert_eq!(lab.get("/api/v2/compute/hosts/2").await.data()["name"], "host-192.0.2.2");
    assert_eq!(lab.delete("/api/v2/compute/hosts/2").await.status, 200);
    assert_eq!(lab.delete("/api/v2/compute/hosts/2").await.status, 404);
}

#[tokio::test]
async fn a_host_in_use_stays() {
    let lab = Lab::furnished().await;
    lab.post("/api/v2/obproxy/clusters/1/obproxies/batchAdd", installation(&[1])).await.data();
    assert_eq!(lab.delete("/api/v2/compute/hosts/1").await.status, 409);
    let both = lab.post("/api/v2/compute/hosts/batchDelete", json!({"hostIdList": [2, 1]})).await;
    assert_eq!(both.status, 409);
    assert_eq!(lab.get("/api/v2/compute/hosts").await.data()["page"]["totalElements"], 2);
}

#[tokio::test]
async fn a_package_is_kept_under_its_digest_until_it_is_deleted() {
    let lab = Lab::new().await;
    let content = package("obproxy", "1.9.1.1", "1919579.el7", "x86_64");
    let first = lab.upload(OBPROXY, &content).await.data();
    assert_eq!(first["type"], "OBPROXY_INSTALL_PACKAGE");
    assert_eq!((&first["buildNumber"], &first["operatingSystem"]), (&json!("1919579"), &json!("el7")));
    let path = lab.packages_dir().join(first["sha256"].as_str().unwrap()).join(OBPROXY);
    assert_eq!(std::fs::read(&path).unwrap(), content);
    assert_eq!(lab.upload(OBPROXY, &content).await.data()["id"], first["id"], "the same file again");

    let mut other = rpm::PackageBuilder::new("obproxy", "1.9.1.1", "Apache-2.0", "x86_64", "Another");
    let config = rpm::BuildConfig::v4().compression(rpm::CompressionType::None);
    let other = other.using_config(config).release("1919579.el7").build().unwrap();
    let mut bytes = Vec::new();
    other.write(&mut bytes).unwrap();
    assert_eq!(lab.upload(OBPROXY, &bytes).await.status, 409);

    let listed = lab.get("/api/v2/software-packages?architecture=x86_64,aarch64&keyword=1.9").await.data();
    assert_eq!(listed["page"]["totalElements"], 1);
    assert_eq!(lab.delete(&format!("/api/v2/software-packages/{}", first["id"])).await.status, 200);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_package_in_use_stays() {
    let lab = Lab::furnished().await;
    lab.post("/api/v2/obproxy/clusters/1/obproxies/batchAdd", installation(&[1])).await.data();
    assert_eq!(lab.delete("/api/v2/software-packages/1").await.status, 409);
}

#[tokio::test]
async fn a_cluster_can_be_created_with_its_proxies() {
    let lab = Lab::furnished().await;
    let request = json!({
        "name": "prod", "address": "db.example", "port": 2883, "workMode": "RS_LIST",
        "obLinks": [{"clusterName": "ob", "obClusterId": 1, "username": "proxyro"}],
        "startupParameters": [{"name": "rootservice_list", "value": "192.0.2.8:2881;192.0.2.9:2881"}],
        "parameters": [{"name": "work_thread_num", "value": "8"}],
        "obproxyInstallParam": installation(&[1, 2]),
        "password": "aaAA11.._", "proxyroPassword": "bbBB22.._",
    });
    let answer = lab.post("/api/v2/obproxy/clusters", request).await;
    let task = answer.data();
    assert_eq!(task["subtasks"].as_array().unwrap().len(), 2 + 2 * 10);
    let cluster = lab.get("/api/v2/obproxy/clusters/2").await;
    assert_eq!(cluster.data()["obproxies"].as_array().unwrap().len(), 2);
    assert_eq!(cluster.data()["creatorName"], "admin");
    let read = lab.get(&format!("/api/v2/tasks/instances/{}", task["id"])).await;
    for text in [&answer.text, &cluster.text, &read.text] {
        assert!(!text.contains("aaAA11.._") && !text.contains("bbBB22.._"), "a password is shown");
    }
}

#[tokio::test]
async fn a_task_is_read_in_both_shapes() {
    let lab = Lab::furnished().await;
    let made = lab.post("/api/v2/obproxy/clusters/1/obproxies/batchAdd", installation(&[2])).await.data();
    let id = &made["contents"][0]["id"];
    let task = lab.get(&format!("/api/v2/tasks/instances/{id}")).await.data();
    assert_eq!(task["subtasks"], task["tasks"]);
    assert_eq!(task["creator"], json!({"id": 100, "name": "admin"}));
    assert!(task["createTime"].is_string() && task.get("finishTime").is_none());
    let subtask = &task["subtasks"][0];
    let log = lab.get(&format!("/api/v2/tasks/instances/{id}/subtasks/{}/log", subtask["id"])).await.data();
    assert_eq!(log, json!({"log": ""}));
    let missing = lab.get(&format!("/api/v2/tasks/instances/{id}/subtasks/1/log")).await;
    assert_eq!(missing.status, 404, "a subtask of another task");

    let listed = lab.get("/api/v2/tasks/instances?status=RUNNING,FAILED&hostId=2&name=Install%20obproxy").await.data();
    assert_eq!(listed["page"], json!({"number": 1, "size": 10, "totalElements": 1, "totalPages": 1}));
    assert_eq!(listed["contents"][0]["id"], *id);
    for (query, total) in [("type=SCHEDULED", 0), ("tenantId=1", 0), ("cluterName=test", 2), ("clusterName=none", 0)] {
        let listed = lab.get(&format!("/api/v2/tasks/instances?{query}")).await.data();
        assert_eq!(listed["page"]["totalElements"], total, "{query}");
    }
    let newest = lab.get("/api/v2/tasks/instances?size=1").await.data();
    assert_eq!(newest["contents"][0]["id"], *id);
}

#[tokio::test]
async fn a_failed_subtask_says_why_and_what_to_do() {
    let lab = Lab::furnished().await;
    let failure = Failure {
        reason: "PORT_IN_USE".into(),
        message: "port 2883 is in use".into(),
        causes: vec!["nginx listens on it".into()],
        next_move: "stop nginx, then retry".into(),
        exit_code: Some(1),
        signal: None,
        log_tail: vec!["bind: address in use".into()],
        effect: Effect::None,
    };
    let read = lab.failed_task(failure).await;
    let task = TaskId(read["id"].as_i64().unwrap());
    let mut transaction = lab.store.begin().await.unwrap();
    task::append_log(&mut transaction, (task, NodeIndex(1), 1), LogPosition::default(), "one line\n").await.unwrap();
    transaction.commit().await.unwrap();

    assert_eq!(read["status"], "FAILED");
    assert!(read["finishTime"].is_string());
    let failed = &read["subtasks"][1];
    let expected = json!({
        "host": "192.0.2.2", "reason": "PORT_IN_USE", "message": "port 2883 is in use",
        "causes": ["nginx listens on it"], "nextMove": "stop nginx, then retry", "exitCode": 1,
        "logTail": ["bind: address in use"], "effect": "none",
    });
    assert_eq!(failed["failure"], expected);
    assert!(failed["startTime"].is_string() && failed["finishTime"].is_string());
    assert!(read["subtasks"][2].get("failure").is_none(), "a waiting one has nothing to say");
    let log = lab.get(&format!("/api/v2/tasks/instances/{task}/subtasks/{}/log", failed["id"])).await.data();
    assert_eq!(log["log"], "one line\n");
}

#[tokio::test]
async fn prometheus_finds_running_proxies_and_all_agents() {
    let lab = Lab::new().await;
    let path = "/api/v2/prometheus/targets";
    assert_eq!(lab.get(path).await.json(), json!([]));
    let lab = Lab::furnished().await;
    lab.post("/api/v2/obproxy/clusters/1/obproxies/batchAdd", installation(&[1])).await.data();
    assert_eq!(lab.get(&format!("{path}?job=obproxy")).await.json(), json!([]), "it is being created");
    let mut transaction = lab.store.begin().await.unwrap();
    obproxy::set_proxy_status(&mut transaction, 1, ObproxyStatus::Running).await.unwrap();
    transaction.commit().await.unwrap();

    let answer = lab.get(&format!("{path}?job=obproxy")).await;
    assert_eq!(answer.headers["content-type"], "application/json");
    let labels = json!({"app": "obproxy", "ob_cluster_name": "test", "obproxy_cluster_id": "1",
        "svr_ip": "192.0.2.1", "svr_port": "2883"});
    assert_eq!(answer.json(), json!([{"targets": ["192.0.2.1:2884"], "labels": labels}]));
    let agents = lab.get(&format!("{path}?job=oblet-agent")).await.json();
    assert_eq!(
        agents[1],
        json!({"targets": ["192.0.2.2:9100"], "labels": {"app": "oblet-agent", "svr_ip": "192.0.2.2"}})
    );
    assert_eq!(lab.get(path).await.json().as_array().unwrap().len(), 3);
    assert_eq!(lab.get(&format!("{path}?job=x")).await.status, 400);
    lab.store.close().await;
    assert_eq!(lab.get(path).await.status, 500, "an unreachable store is no empty list");
}

#[tokio::test]
async fn health_and_metrics_need_no_password() {
    let lab = Lab::furnished().await;
    let open = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    for path in ["/-/healthy", "/-/ready", "/api/v2/time"] {
        assert_eq!(lab.send(open(path)).await.status, 200, "{path}");
    }
    assert_eq!(lab.send(open("/api/v2/info")).await.status, 401);
    lab.get("/api/v2/nothing").await;
    let metrics = lab.send(open("/metrics")).await.text;
    let line = "oblet_api_requests_total{method=\"GET\",route=\"unmatched\",status=\"404\"} 1";
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
    let helps: Vec<&str> = metrics.lines().filter(|line| line.starts_with("# HELP")).collect();
    assert!(!helps.is_empty() && helps.iter().all(|help| help.ends_with('.')), "{helps:?}");
}
