//! What tells of the whole: status, versions, the audit log.

use insta::assert_snapshot;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, io, io::Read as _, os::unix::fs::PermissionsExt as _, path::Path};

use crate::fake::{Fake, PASSWORD, oblet, page, tell};

const TASKS: &str = "GET /api/v2/tasks/instances";

fn tasks(status: &str, ids: &[u64]) -> Value {
    let task = |id: &u64| json!({"id": id, "name": "Install obproxy", "status": status, "startTime": "2021-09-03T16:25:08.004+08:00"});
    page(ids.iter().map(task).collect())
}

async fn coordinator(hosts: Value, proxies: Value) -> Fake {
    let clusters = page(json!([{"id": 1, "name": "proxies", "obproxies": proxies}]));
    Fake::start()
        .await
        .answers("GET /api/v2/info", json!({"product": "oblet", "buildVersion": "0.1.0"}))
        .answers("GET /api/v2/compute/hosts", page(hosts))
        .answers("GET /api/v2/obproxy/clusters", clusters)
}

#[tokio::test]
async fn a_healthy_system_takes_four_lines() {
    let hosts = json!([{"id": 1, "status": "ONLINE"}, {"id": 2, "status": "AVAILABLE"}]);
    let fake = coordinator(hosts, json!([{"id": 2, "status": "RUNNING"}])).await;
    let fake = fake.raw("GET /-/ready", 200, "ready\n".into()).answers(TASKS, tasks("RUNNING", &[]));
    assert_snapshot!(fake.run(&["status"]).await);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let hosts = json!([
        {"id": 1, "status": "ONLINE", "innerIpAddress": "10.0.0.1"},
        {"id": 2, "status": "OFFLINE", "alias": "db2", "innerIpAddress": "10.0.0.2"},
    ]);
    let proxies = json!([
        {"id": 2, "hostId": 1, "ip": "10.0.0.1", "sqlPort": 2883, "status": "RUNNING", "operateStatus": "NORMAL"},
        {"id": 3, "hostId": 2, "ip": "10.0.0.2", "sqlPort": 2883, "status": "UNAVAILABLE", "operateStatus": "NORMAL"},
    ]);
    let fake = coordinator(hosts, proxies).await.raw("GET /-/ready", 503, "not ready\n".into());
    let fake = fake.answers(TASKS, tasks("RUNNING", &[33003])).answers(TASKS, tasks("FAILED", &[33002, 33001]));
    assert_snapshot!(format!("{}\n{}", fake.run(&["status"]).await, fake.requests()));
}

#[tokio::test]
async fn a_proxy_that_a_task_changes_is_listed_and_no_alarm() {
    let proxies = json!([{"id": 2, "status": "CREATING", "operateStatus": "OPERATING"}]);
    let fake = coordinator(json!([]), proxies).await.raw("GET /-/ready", 200, "ready\n".into());
    let fake = fake.answers(TASKS, tasks("RUNNING", &[33001])).answers(TASKS, tasks("FAILED", &[]));
    let output = fake.command(&["status", "-o", "json"]).output().await.unwrap();
    let data: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &data["healthy"]), (Some(0), &json!(true)));
    assert_eq!(
        (&data["obproxies"]["notRunning"][0]["cluster"], &data["tasks"]["running"]),
        (&json!("proxies"), &json!(1))
    );
}

#[tokio::test]
async fn both_versions_are_told_and_the_own_one_always() {
    let fake = Fake::start().await.answers("GET /api/v2/info", json!({"product": "oblet", "buildVersion": "0.2.0"}));
    let mut told = fake.run(&["version"]).await;
    told += &format!("\n\n{}", fake.run(&["version", "-o", "json"]).await);
    let output = oblet(&["version"]).output().await.unwrap();
    told += &format!("\n\n{}", tell(&["version"], &output));
    assert_snapshot!(told.replace(env!("CARGO_PKG_VERSION"), "OWN"));
}

#[tokio::test]
async fn audit_events_are_filtered_over_all_pages() {
    let events = "GET /api/v2/audit/events";
    let event = |id: u64, user: &str, action: &str, object: &str| {
        json!({"id": id, "user": user, "action": action, "object": object, "detail": "", "traceId": "0fda4c74b7a84932",
            "createTime": "2021-09-03T16:25:08.004+08:00"})
    };
    let paged = |number: u64, contents: Value| json!({"contents": contents, "page": {"number": number, "size": 500, "totalElements": 4, "totalPages": 2}});
    let first = paged(1, json!([event(4, "admin", "task.retry", "task 4"), event(3, "dba", "host.delete", "host 1")]));
    let second =
        paged(2, json!([event(2, "admin", "taskforce.found", "x"), event(1, "admin", "task.cancel", "task 4")]));
    let fake = Fake::start().await.answers(events, first.clone()).answers(events, second).answers(events, first);
    let told = fake.run(&["audit", "list", "--by", "admin", "--action", "task"]).await;
    let one = fake.run(&["audit", "list", "--object", "host 1", "--limit", "1", "-o", "wide"]).await;
    assert_snapshot!(format!("{told}\n\n{one}\n{}", fake.requests()));
}

/// The files of a bundle, by their names.
fn unpacked(path: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(path).unwrap()));
    let file = |entry: io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name, text)
    };
    archive.entries().unwrap().map(file).collect()
}

#[tokio::test]
async fn a_bundle_for_support_holds_what_failed_and_says_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("support.tar.gz");
    let subtask = json!({"id": 7, "name": "Install rpm", "status": "FAILED"});
    let task = json!({"id": 33001, "name": "Install obproxy", "status": "FAILED", "subtasks": [subtask]});
    let fake = coordinator(json!([{"id": 1, "status": "ONLINE"}]), json!([]))
        .await
        .raw("GET /-/ready", 200, "ready\n".into())
        .answers(TASKS, tasks("FAILED", &[33001]))
        .answers(&format!("{TASKS}/33001"), task)
        .answers(&format!("{TASKS}/33001/subtasks/7/log"), json!({"log": "no space left\n"}))
        .answers("GET /api/v2/compute/hosts/certificates", page(json!([])))
        .answers("GET /api/v2/audit/events", page(json!([])));
    let args = ["support", path.to_str().unwrap()];
    let told = format!("{}\n\n{}", fake.run(&args).await, fake.run(&args).await);
    assert_snapshot!(told.replace(directory.path().to_str().unwrap(), "DIRECTORY"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let files = unpacked(&path);
    assert_snapshot!("names_of_a_bundle", files.keys().map(String::as_str).collect::<Vec<_>>().join("\n"));
    assert!(files["oblet-support/task-33001.log"].contains("==> Install rpm (7) <==\nno space left\n"));
    assert!(files["oblet-support/packages.error.json"].contains("The object does not exist"));
    assert!(!files.values().any(|text| text.contains(PASSWORD)));
}
