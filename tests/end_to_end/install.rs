use crate::lab::{Lab, MODERN_PACKAGE, PACKAGE, SQL_PORT, SYS_PASSWORD, occupy, possible};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

fn scrape(address: Ipv4Addr, port: u16) -> String {
    let mut stream = TcpStream::connect((address, port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_get_a_proxy_each() {
    if !possible() {
        return;
    }
    let lab = Lab::start(2).await;
    let cluster = lab.set_up(json!({ "parameters": parameters() })).await;
    let tasks = lab.batch_add(cluster).await;
    all_serve(&lab, tasks, PACKAGE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_get_a_proxy_with_a_port_for_rpc_each() {
    if !possible() {
        return;
    }
    let lab = Lab::start(2).await;
    let package = lab.build_modern_package();
    let cluster = lab.set_up_with(&package, json!({ "parameters": parameters() })).await;
    let tasks = lab.batch_add_modern(cluster).await;
    all_serve(&lab, tasks, MODERN_PACKAGE).await;
    for host in &lab.hosts {
        TcpStream::connect((host.address, host.rpc_port)).unwrap();
    }
}

fn parameters() -> Value {
    json!([{"name": "proxy_mem_limited", "value": "3G"}])
}

async fn all_serve(lab: &Lab, tasks: Vec<i64>, package: &str) {
    assert_eq!(tasks.len(), 2, "one task per host");
    for id in tasks {
        let task = lab.finished(id).await;
        assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
        assert!(task["subtasks"].as_array().unwrap().iter().all(|subtask| subtask["status"] == "SUCCESSFUL"));
        let log = lab.log(&task, "Install rpm by package and version").await;
        assert!(log.starts_with("############{EXECUTE}{"), "{log}");
        assert!(log.contains("scriptlet ran once"), "{log}");
    }
    for host in &lab.hosts {
        assert_eq!(host.packages().trim(), package);
        assert_eq!(host.processes().len(), 1);
        let address = host.address.to_string();
        let mut client =
            oblet_standins::client::Client::login(&address, SQL_PORT, "root@proxysys", SYS_PASSWORD).unwrap();
        let rows = client.query("SHOW PROXYCONFIG LIKE 'proxy_mem_limited'").unwrap();
        assert!(format!("{rows:?}").contains("3G"), "{rows:?}");
        // Without tenants the families of a proxy are those of its exposer.
        let families = scrape(host.address, host.exporter_port);
        assert!(families.contains("\nexposer_"), "{families}");
        assert!(scrape(host.address, 62899).contains("oblet_instance_up"));
    }
    let targets = lab.get("/api/v2/prometheus/targets").await.unwrap().to_string();
    for host in &lab.hosts {
        assert!(targets.contains(&format!("{}:{}", host.address, host.exporter_port)), "{targets}");
    }
    lab.assert_nowhere(SYS_PASSWORD);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named_before_anything_is_touched() {
    if !possible() {
        return;
    }
    let lab = Lab::start(1).await;
    let cluster = lab.set_up(json!({})).await;
    let _stranger = occupy(lab.hosts[0].address, SQL_PORT);
    let task = lab.finished(lab.batch_add(cluster).await[0]).await;
    assert_eq!(task["status"], "FAILED");
    let subtasks = task["subtasks"].as_array().unwrap();
    let failed = subtasks.iter().find(|subtask| subtask["status"] == "FAILED").unwrap();
    assert_eq!(failed["name"], "Prepare create obproxy");
    let failure = &failed["failure"];
    assert!(failure["message"].as_str().unwrap().contains("2883"), "{failure}");
    assert_eq!(failure["host"], lab.hosts[0].address.to_string());
    assert!(!failure["nextMove"].as_str().unwrap().is_empty());
    assert_eq!(lab.hosts[0].packages(), "");
}
