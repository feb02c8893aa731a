use crate::lab::{Lab, PACKAGE, SQL_PORT, SYS_PASSWORD, possible};
use serde_json::{Value, json};
use std::{fs, time::Duration};

const ALL: [i64; 2] = [1, 2];

/// A lab with a cluster of a proxy on each host; answers the id of the cluster.
async fn serving(hosts: u8) -> (Lab, i64) {
    let lab = Lab::start(hosts).await;
    let cluster = lab.set_up(json!({ "parameters": [{"name": "proxy_mem_limited", "value": "3G"}] })).await;
    for id in lab.batch_add(cluster).await {
        assert_eq!(lab.finished(id).await["status"], "SUCCESSFUL");
    }
    (lab, cluster)
}

async fn removed(lab: &Lab, cluster: i64, body: Value) -> i64 {
    let (status, answer) = lab.post(&format!("/api/v2/obproxy/clusters/{cluster}/servers/delete"), &body).await;
    assert_eq!(status, 200, "{answer:#}");
    answer["data"]["id"].as_i64().unwrap()
}

async fn proxies(lab: &Lab, cluster: i64) -> Vec<String> {
    let cluster = lab.get(&format!("/api/v2/obproxy/clusters/{cluster}")).await.unwrap();
    let proxies = cluster["data"]["obproxies"].as_array().unwrap();
    proxies.iter().map(|proxy| format!("{} {}", proxy["id"], proxy["status"].as_str().unwrap())).collect()
}

async fn host_statuses(lab: &Lab) -> Vec<String> {
    let hosts = lab.get("/api/v2/compute/hosts").await.unwrap();
    let hosts = hosts["data"]["contents"].as_array().unwrap();
    hosts.iter().map(|host| host["status"].as_str().unwrap().to_owned()).collect()
}

fn assert_serves(lab: &Lab, host: usize) {
    let host = &lab.hosts[host];
    assert_eq!((host.packages().trim(), host.processes().len()), (PACKAGE, 1));
    let address = host.address.to_string();
    let mut client = oblet_standins::client::Client::login(&address, SQL_PORT, "root@proxysys", SYS_PASSWORD).unwrap();
    let rows = client.query("SHOW PROXYCONFIG LIKE 'proxy_mem_limited'").unwrap();
    assert_eq!(rows[0][1].as_deref(), Some("3G"));
}

fn assert_gone(lab: &Lab, host: usize) {
    let host = &lab.hosts[host];
    assert_eq!((host.packages().as_str(), host.processes()), ("", Vec::new()));
    assert!(!host.root().join("home/admin/obproxy/2883").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_go_others_come_and_the_cluster_goes() {
    if !possible() {
        return;
    }
    let (lab, cluster) = serving(2).await;
    assert_eq!(host_statuses(&lab).await, ["ONLINE", "ONLINE"]);
    let task = lab.finished(removed(&lab, cluster, json!({"obproxyServerIds": ALL})).await).await;
    assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
    let log = lab.log(&task, "Stop and uninstall obproxy").await;
    assert!(log.contains("its logs are kept in") && log.contains("is erased"), "{log}");
    for host in 0..2 {
        assert_gone(&lab, host);
    }
    assert!(proxies(&lab, cluster).await.is_empty());
    assert_eq!(host_statuses(&lab).await, ["AVAILABLE", "AVAILABLE"]);

    // The same ports and directories are free for others.
    for id in lab.batch_add(cluster).await {
        assert_eq!(lab.finished(id).await["status"], "SUCCESSFUL");
    }
    let path = format!("/api/v2/obproxy/clusters/{cluster}");
    let answer: Value = lab.rest().request(reqwest::Method::DELETE, &path).send().await.unwrap().json().await.unwrap();
    let task = lab.finished(answer["data"]["id"].as_i64().unwrap()).await;
    assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
    for host in 0..2 {
        assert_gone(&lab, host);
    }
    assert_eq!(lab.get(&path).await.unwrap()["status"], 404);
    lab.assert_nowhere(SYS_PASSWORD);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_fails_is_rolled_back_and_all_proxies_serve_again() {
    if !possible() {
        return;
    }
    let (lab, cluster) = serving(2).await;
    // Nothing that a database makes is nested so deep, so it is not removed.
    let deep = "d/".repeat(70);
    fs::create_dir_all(lab.hosts[1].root().join("home/admin/obproxy/2883").join(deep)).unwrap();
    let id = removed(&lab, cluster, json!({"obproxyServerIds": ALL, "keepLogs": false})).await;
    let task = lab.finished(id).await;
    assert_eq!(task["status"], "FAILED", "{task:#}");
    assert!(task.to_string().contains("nested too deep"), "{task:#}");
    assert_gone(&lab, 0);
    assert_eq!(lab.hosts[1].packages(), "");
    assert_eq!(proxies(&lab, cluster).await, ["1 DELETING", "2 DELETING"]);

    let (status, answer) = lab.post(&format!("/api/v2/tasks/instances/{id}/rollback"), &Value::Null).await;
    assert_eq!(status, 200, "{answer:#}");
    let task = lab.finished(id).await;
    assert_eq!((&task["operation"], &task["status"]), (&json!("ROLLBACK"), &json!("SUCCESSFUL")), "{task:#}");
    for host in 0..2 {
        assert_serves(&lab, host);
    }
    assert_eq!(proxies(&lab, cluster).await, ["1 RUNNING", "2 RUNNING"]);
    assert_eq!(host_statuses(&lab).await, ["ONLINE", "ONLINE"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_before_every_agent_has_answered_and_a_host_that_is_gone_is_left_out() {
    if !possible() {
        return;
    }
    let (mut lab, cluster) = serving(2).await;
    lab.hosts[1].agent.as_mut().unwrap().kill();
    let id = removed(&lab, cluster, json!({"obproxyServerIds": ALL})).await;
    let path = format!("/api/v2/tasks/instances/{id}");
    let task = lab.get(&path).await.unwrap();
    let waiting = task["data"]["subtasks"].as_array().unwrap().iter();
    let waiting = waiting.filter(|subtask| subtask["name"] == "Prepare offline obproxy");
    let waiting = waiting.max_by_key(|subtask| subtask["parallelIdx"].as_i64()).unwrap()["id"].clone();
    while lab.post(&format!("{path}/subtasks/{waiting}/cancel"), &Value::Null).await.0 == 409 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(lab.finished(id).await["status"], "FAILED");
    assert_serves(&lab, 0);
    lab.post(&format!("{path}/rollback"), &Value::Null).await;
    assert_eq!(lab.finished(id).await["status"], "SUCCESSFUL");
    assert_eq!(proxies(&lab, cluster).await, ["1 RUNNING", "2 RUNNING"]);

    let body = json!({"obproxyServerIds": ALL, "skipHostOperationServerIds": [2]});
    let task = lab.finished(removed(&lab, cluster, body).await).await;
    assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
    assert_gone(&lab, 0);
    assert_eq!(lab.hosts[1].processes().len(), 1, "nobody has touched it");
    assert!(proxies(&lab, cluster).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_goes_on_after_the_agent_and_the_coordinator_were_killed() {
    if !possible() {
        return;
    }
    for begun in 2..7 {
        let (mut lab, cluster) = serving(1).await;
        let id = removed(&lab, cluster, json!({"obproxyServerIds": [1]})).await;
        loop {
            let task = lab.get(&format!("/api/v2/tasks/instances/{id}")).await.unwrap();
            let subtasks = task["data"]["subtasks"].as_array().unwrap().iter();
            let has_begun = |subtask: &&Value| subtask["status"] == "RUNNING" || subtask["status"] == "SUCCESSFUL";
            if subtasks.filter(has_begun).count() >= begun {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        lab.hosts[0].agent.as_mut().unwrap().kill();
        lab.coordinator.as_mut().unwrap().kill();
        lab.hosts[0].start_agent();
        lab.start_coordinator();
        let task = lab.finished(id).await;
        assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
        assert_gone(&lab, 0);
        assert!(proxies(&lab, cluster).await.is_empty());
    }
}
