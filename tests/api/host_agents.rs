//! Agents of hosts: what they are, and that they are restarted and stopped by tasks.

use crate::support::{Answer, HUNG, Lab, deb, package};
use oblet::coordinator::store::task;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

const HOSTS: &str = "/api/v2/compute/hosts";

/// Name, place in its template and index of each subtask.
fn shape(task: &Value) -> Value {
    let of = |subtask: &Value| json!([subtask["seriesId"], subtask["name"], subtask["parallelIdx"]]);
    task["subtasks"].as_array().unwrap().iter().map(of).collect()
}

/// Sends the request, and lets the task that it makes come to its end before it is answered.
async fn answered(lab: &Lab, path: &str, fails: bool) -> Answer {
    let end = async {
        let task = loop {
            let newest = lab.get("/api/v2/tasks/instances?size=1").await.data()["contents"][0].take();
            if newest["name"].as_str().unwrap().ends_with("OCP agent") && newest["status"] == "RUNNING" {
                break newest;
            }
            tokio::task::yield_now().await;
        };
        if fails {
            lab.begin(&task).await;
            lab.fail(&task, 0).await;
        } else {
            lab.finish(&task).await;
        }
    };
    let both = async { tokio::join!(lab.post(path, json!({})), end).0 };
    tokio::time::timeout(std::time::Duration::from_secs(30), both).await.unwrap()
}

#[tokio::test]
async fn an_agent_is_described_by_itself_or_by_its_silence() {
    let lab = Lab::new().await;
    lab.have_hosts(&["192.0.2.1"]).await;
    lab.add_hosts(&["203.0.113.1", HUNG]).await.data();
    for prefix in [HOSTS, "/compute/hosts"] {
        let agent = lab.get(&format!("{prefix}/1/agent")).await.data();
        assert_eq!((&agent["status"], &agent["version"]), (&json!("STARTED"), &json!("0.1.0")));
        assert_eq!((&agent["installHome"], &agent["processes"][0]["pid"]), (&json!("/usr/bin"), &json!(17)));
        let processes = lab.get(&format!("{prefix}/1/agent/processes")).await.data();
        assert_eq!(processes["page"]["totalElements"], 1);
        assert_eq!(processes["contents"][0]["startCommand"], "/usr/bin/oblet-agent --config x");
    }
    let silent = lab.get(&format!("{HOSTS}/2/agent")).await.data();
    assert_eq!((&silent["status"], &silent["problem"]), (&json!("STOPPED"), &json!("connection refused")));
    assert_eq!(silent["processes"], json!([]));
    assert_eq!(lab.get(&format!("{HOSTS}/3/agent")).await.data()["status"], "UNREACHABLE");
    assert!(silent.get("lastAvailableTime").is_none());
    assert_eq!(lab.get(&format!("{HOSTS}/9/agent")).await.status, 404);
}

#[tokio::test]
async fn one_agent_is_restarted_by_a_chain_and_several_wait_for_each_other() {
    let lab = Lab::furnished().await;
    let one = lab.post(&format!("{HOSTS}/2/agent/restart"), json!({})).await.data();
    assert_eq!((&one["name"], &one["hostId"]), (&json!("Restart OCP agent"), &json!(2)));
    let chain = json!([
        [2, "Prepare restart OCP agent", -1],
        [1, "Start all OCP agent processes", -1],
        [3, "Finish OCP agent operation", -1],
    ]);
    assert_eq!(shape(&one), chain);

    let both = lab.post("/compute/hosts/batchRestartAgents", json!({"hostIds": [1, 2]})).await.data();
    let graph = json!([
        [2, "Prepare restart OCP agent", 0],
        [2, "Prepare restart OCP agent", 1],
        [0, "Wait node", -1],
        [5, "Start all OCP agent processes", 0],
        [5, "Start all OCP agent processes", 1],
        [3, "Wait node", -1],
        [6, "Finish OCP agent operation", 0],
        [6, "Finish OCP agent operation", 1],
    ]);
    assert_eq!(shape(&both), graph);
    assert_eq!(both["subtasks"][2]["upstreams"].as_array().unwrap().len(), 2);
    assert_eq!(lab.post(&format!("{HOSTS}/batchRestartAgents"), json!({"hostIds": [1, 1]})).await.status, 400);
    assert_eq!(lab.post(&format!("{HOSTS}/batchRestartAgents"), json!({"hostIds": [1, 9]})).await.status, 404);
}

#[tokio::test]
async fn an_agent_is_restarted_whoever_has_its_host_and_not_stopped() {
    let lab = Lab::new().await;
    lab.add_hosts(&["192.0.2.1"]).await.data();
    lab.post(&format!("{HOSTS}/1/agent/restart"), json!({})).await.data();
    let refused = lab.post(&format!("{HOSTS}/1/agent/stop"), json!({})).await;
    assert_eq!(refused.status, 409);
    assert!(refused.text.contains("CMP07004: host 1 is reserved by task"), "{}", refused.text);
}

#[tokio::test]
async fn an_agent_that_is_to_stop_is_written_down_with_who_asked() {
    let lab = Lab::furnished().await;
    let send = async || {
        let body = json!({"hostIds": [1, 2], "clientToken": "token-of-a-client"});
        lab.post(&format!("{HOSTS}/batchStopAgents"), body).await.data()
    };
    let task = send().await;
    assert_eq!(task["name"], "Stop OCP agent");
    assert_eq!(send().await, task, "the same request again");
    let page = lab.get("/api/v2/audit/events?size=2").await.data();
    let told: Vec<_> = page["contents"].as_array().unwrap().iter().map(|event| &event["object"]).collect();
    assert_eq!(told, ["host 2", "host 1"]);
    assert_eq!(page["contents"][0]["action"], "agent.stop");
}

#[tokio::test]
async fn the_calls_about_a_process_wait_for_the_end_of_the_task() {
    let lab = Lab::furnished().await;
    let process = format!("{HOSTS}/1/agent/processes/1");
    let restarted = answered(&lab, &format!("{process}/restart"), false).await.data();
    assert_eq!((&restarted["id"], &restarted["pid"], &restarted["status"]), (&json!(1), &json!(17), &json!("STARTED")));
    let stopped = answered(&lab, &format!("{process}/stop"), false).await.data();
    assert_eq!((&stopped["pid"], &stopped["status"]), (&json!(0), &json!("STOPPED")));
    let failed = answered(&lab, &format!("{process}/restart"), true).await;
    assert_eq!(failed.status, 502);
    assert!(failed.text.contains("failed: port 2883 is in use"), "{}", failed.text);
    assert_eq!(lab.post(&format!("{HOSTS}/1/agent/processes/2/stop"), json!({})).await.status, 404);
}

#[tokio::test]
async fn agents_are_upgraded_in_waves_by_the_package_of_their_host() {
    let lab = Lab::furnished().await;
    lab.have_hosts(&["192.0.2.3"]).await;
    let rpm = package("oblet-agent", "0.1.0", "2", "x86_64");
    let rpm = lab.upload("oblet-agent-0.1.0-2.x86_64.rpm", &rpm).await.data();
    let deb = lab.upload("oblet-agent_0.1.0-2_amd64.deb", &deb("oblet-agent", "0.1.0-2", "amd64")).await.data();
    assert_eq!((&deb["type"], &deb["extension"]), (&json!("OCP_AGENT_INSTALL_PACKAGE"), &json!("deb")));
    assert_eq!((&deb["version"], &deb["buildNumber"]), (&json!("0.1.0"), &json!("2")));

    let path = format!("{HOSTS}/batchUpgradeAgents");
    let body = json!({"hostIds": [1, 2, 3], "packages": [rpm["id"], deb["id"]], "parallel": 2});
    let key = [("Idempotency-Key", "one-upgrade")];
    let task = lab.post_with(&path, &key, body.clone()).await.data();
    let graph = json!([
        [0, "Prepare upgrade OCP agent", 0],
        [1, "Upgrade OCP agent", 0],
        [2, "Finish upgrade OCP agent", 0],
        [0, "Prepare upgrade OCP agent", 1],
        [1, "Upgrade OCP agent", 1],
        [2, "Finish upgrade OCP agent", 1],
        [3, "Wait node", -1],
        [0, "Prepare upgrade OCP agent", 2],
        [1, "Upgrade OCP agent", 2],
        [2, "Finish upgrade OCP agent", 2],
    ]);
    assert_eq!((shape(&task), &task["name"]), (graph, &json!("Upgrade OCP agent")));
    assert_eq!(lab.post_with(&path, &key, body).await.data(), task, "the same request again");
    let events = lab.get("/api/v2/audit/events?size=1").await.data();
    assert_eq!(events["contents"][0]["action"], "agent.upgrade");
}

#[tokio::test]
async fn agents_are_upgraded_by_packages_of_the_agent_only() {
    let lab = Lab::furnished().await;
    for release in ["2", "3"] {
        let name = format!("oblet-agent_0.1.0-{release}_amd64.deb");
        lab.upload(&name, &deb("oblet-agent", &format!("0.1.0-{release}"), "amd64")).await.data();
    }
    let ask = async |change: Value| {
        let mut body = json!({"hostIds": [1], "packages": [2]});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = lab.post(&format!("{HOSTS}/batchUpgradeAgents"), body).await;
        (answer.status.as_u16(), answer.text)
    };
    for (change, status, text) in [
        (json!({"packages": [1]}), 400, "is no package of the agent"),
        (json!({"packages": [9]}), 404, "the package 9 does not exist"),
        (json!({"packages": []}), 400, "1 to 8 packages"),
        (json!({"packages": [2, 3]}), 400, "are for the same hosts"),
        (json!({"parallel": 0}), 400, "1 to 200 agents"),
        (json!({"hostIds": [1, 1]}), 400, "named twice"),
        (json!({"hostIds": [9]}), 404, "9"),
    ] {
        let (found, told) = ask(change).await;
        assert_eq!(found, status, "{told}");
        assert!(told.contains(text), "{told}");
    }
    let other = lab.upload("obproxy_1.0-1_amd64.deb", &deb("obproxy", "1.0-1", "amd64")).await;
    assert_eq!((other.status.as_u16(), other.json()["error"]["code"].is_null()), (400, false), "{}", other.text);
    let misnamed = lab.upload("oblet-agent_0.1.0-4_amd64.deb", &deb("oblet-agent", "0.1.0-2", "amd64")).await;
    assert!(misnamed.text.contains("name the file oblet-agent_0.1.0-2_amd64.deb"), "{}", misnamed.text);
    let whole = deb("oblet-agent", "0.1.0-4", "amd64");
    let truncated = lab.upload("oblet-agent_0.1.0-4_amd64.deb", &whole[..whole.len() - 2]).await;
    assert!(truncated.text.contains("PKG10006"), "{}", truncated.text);
}

#[tokio::test]
async fn epochs_go_on_above_that_of_an_agent_which_refuses_the_coordinator() {
    let lab = Lab::furnished().await;
    let path = format!("{HOSTS}/1/agent/resetEpoch");
    lab.engine.agent_epoch.store(1, Ordering::Relaxed);
    assert_eq!(lab.post(&path, json!({})).await.status, 409, "there is nothing to reset");
    let ahead = 4_102_444_800_u64;
    lab.engine.agent_epoch.store(ahead, Ordering::Relaxed);
    let expected = json!({"agentEpoch": ahead, "coordinatorEpoch": 1, "nextEpoch": ahead + 1});
    assert_eq!(lab.post(&format!("{path}?dryRun=true"), json!({})).await.data(), expected);
    assert!(u64::try_from(task::next_epoch(&lab.store).await.unwrap()).unwrap() < ahead, "a dry run changes nothing");
    assert_eq!(lab.post(&path, json!({})).await.data(), expected);
    assert_eq!(u64::try_from(task::next_epoch(&lab.store).await.unwrap()).unwrap(), ahead + 1);
    let audit = lab.get("/api/v2/audit/events?size=1").await.data();
    assert_eq!(
        (&audit["contents"][0]["action"], &audit["contents"][0]["object"]),
        (&json!("epoch.reset"), &json!("host 1"))
    );

    // One that uses up all epochs there are would lock the coordinator out of every host.
    lab.engine.agent_epoch.store(u64::MAX >> 1, Ordering::Relaxed);
    let refused = lab.post(&path, json!({})).await;
    assert_eq!(refused.status, 409);
    assert!(refused.text.contains("which no clock gives"), "{}", refused.text);
    assert_eq!(lab.post(&format!("{HOSTS}/77/agent/resetEpoch"), json!({})).await.status, 404);
    lab.add_hosts(&["203.0.113.1"]).await.data();
    assert_eq!(lab.post(&format!("{HOSTS}/3/agent/resetEpoch"), json!({})).await.status, 502);
}
