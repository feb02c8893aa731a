//! What operators call things: ids, addresses, aliases, names of clusters and of files.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::fake::{Fake, page};

const HOSTS: &str = "GET /api/v2/compute/hosts";
const PACKAGES: &str = "GET /api/v2/software-packages";

fn hosts() -> Value {
    page(json!([
        {"id": 1, "innerIpAddress": "10.0.0.1", "alias": "db1", "name": "node1.example"},
        {"id": 2, "innerIpAddress": "10.0.0.2", "alias": "db", "name": "node2.example"},
        {"id": 3, "innerIpAddress": "10.0.0.3", "alias": "db", "name": "node3.example"},
        {"id": 4, "innerIpAddress": "fd00::4", "alias": "", "name": ""},
    ]))
}

#[tokio::test]
async fn a_host_is_found_by_its_address_its_alias_and_its_name() {
    let mut fake = Fake::start().await.answers(HOSTS, hosts());
    for id in [1, 2, 4] {
        fake = fake.answers(&format!("{HOSTS}/{id}"), json!({"id": id}));
    }
    for (name, id) in [("1", "1"), ("db1", "1"), ("10.0.0.2", "2"), ("node2.example", "2"), ("fd00:0::4", "4")] {
        let told = fake.run(&["host", "show", name, "-o", "name"]).await;
        assert!(told.contains(&format!("--- stdout\n{id}\n--- exit 0")), "{told}");
    }
    // An id is not looked up.
    assert_eq!(fake.requests().lines().next(), Some("GET /api/v2/compute/hosts/1"));
}

#[tokio::test]
async fn a_name_of_several_or_of_none_is_refused_before_anything_is_changed() {
    let fake = Fake::start().await.answers(HOSTS, hosts());
    let ambiguous = fake.run(&["host", "remove", "db", "--yes"]).await;
    let absent = fake.run(&["host", "stop-agent", "1", "db9", "--yes"]).await;
    assert!(!fake.requests().contains("DELETE") && !fake.requests().contains("POST"));
    assert_snapshot!(format!("{ambiguous}\n\n{absent}"));
}

#[tokio::test]
async fn every_command_takes_names() {
    let agents = "POST /api/v2/compute/hosts";
    let task = json!({"id": 33001, "name": "a task", "status": "RUNNING"});
    let cluster = json!({"id": 7, "name": "proxies"});
    let package = json!({"id": 8, "fileName": "obproxy-ce-4.3.1.0-4.el8.x86_64.rpm"});
    let fake = Fake::start()
        .await
        .answers(HOSTS, hosts())
        .answers(PACKAGES, page(json!([package])))
        .answers("GET /api/v2/obproxy/clusters", page(json!([cluster])))
        .answers(&format!("{agents}/batchRestartAgents"), task.clone())
        .answers(&format!("{agents}/batchStopAgents"), task.clone())
        .answers(&format!("{agents}/batchUpgradeAgents"), task.clone())
        .answers(&format!("{agents}/revoke"), json!({"hostId": 1, "innerIpAddress": "10.0.0.1"}))
        .answers(&format!("{agents}/1/agent/resetEpoch"), Value::Null)
        .answers("GET /api/v2/compute/hosts/1/agent", json!({"hostId": 1}))
        .answers("DELETE /api/v2/compute/hosts/1", Value::Null)
        .answers("DELETE /api/v2/software-packages/8", Value::Null)
        .answers("POST /api/v2/obproxy/clusters/7/obproxies/batchAdd", json!({"contents": [task.clone()]}))
        .answers("PATCH /api/v2/obproxy/clusters/7", json!({"id": 7}))
        .answers("POST /api/v2/obproxy/clusters/7/obLinks/batchAdd", Value::Null)
        .answers("DELETE /api/v2/obproxy/clusters/7/obLinks/hooray", Value::Null)
        .answers("POST /api/v2/obproxy/clusters", task);
    for line in [
        "host restart-agent db1 10.0.0.2 --detach --yes",
        "host stop-agent 2 db1 --detach --yes",
        "host upgrade-agent db1 --package 8 --detach --yes",
        "host revoke db1 --yes",
        "host agent db1",
        "host reset-epoch db1 --yes",
        "host remove db1 --yes",
        "package remove obproxy-ce-4.3.1.0-4.el8.x86_64.rpm --yes",
        "obproxy set-address proxies --port 2883",
        "obproxy add-link proxies hooray:1",
        "obproxy remove-link proxies hooray --yes",
        "obproxy add proxies --host db1 10.0.0.2 --version 8 --detach",
        "obproxy create more --ob-link hooray:1 --host db1 --version 8 --detach",
    ] {
        let told = fake.run(&line.split(' ').collect::<Vec<_>>()).await;
        assert!(told.ends_with("--- exit 0"), "{told}");
    }
    let requests = fake.requests();
    let changes: Vec<_> = requests.lines().filter(|line| !line.starts_with("GET") || line.contains("/agent")).collect();
    assert_snapshot!(changes.join("\n"));
}

#[tokio::test]
async fn only_what_is_named_by_an_id_may_be_looked_up_in_vain() {
    let fake = Fake::start().await.answers(PACKAGES, page(json!([]))).answers(HOSTS, hosts());
    let told = fake.run(&["obproxy", "add", "7", "--host", "1", "--version", "8"]).await;
    assert_snapshot!(told);
}
