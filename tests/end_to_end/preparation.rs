use crate::lab::{Lab, possible};
use serde_json::{Value, json};

const HOSTS: &str = "/api/v2/compute/hosts";

impl Lab {
    /// Adds the first host; answers the task.
    async fn add_host_under(&self, metrics_port: Option<u16>) -> i64 {
        let mut body = json!({"hostBasicDataList": [{"innerIpAddress": self.hosts[0].address.to_string()}]});
        body["monagentPort"] = json!(metrics_port);
        let (status, answer) = self.post(&format!("{HOSTS}/batchCreate"), &body).await;
        assert_eq!(status, 200, "{answer}");
        answer["data"]["contents"][0]["id"].as_i64().unwrap()
    }

    async fn order(&self, task: i64, verb: &str) -> (u16, Value) {
        self.post(&format!("/api/v2/tasks/instances/{task}/{verb}"), &Value::Null).await
    }

    async fn known_hosts(&self) -> Value {
        self.get(HOSTS).await.unwrap()["data"]["contents"].clone()
    }
}

/// The agent answers late: until then the host is NEW, and a rollback makes it unknown again.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_an_agent_waits_for_it_or_is_rolled_back() {
    if !possible() {
        return;
    }
    let mut lab = Lab::start(1).await;
    lab.hosts[0].agent.as_mut().unwrap().stop();
    let id = lab.add_host_under(None).await;
    lab.told(id, "waiting: agent").await;
    assert_eq!(lab.known_hosts().await[0]["status"], "NEW");
    assert_eq!(lab.order(id, "cancel").await.0, 200);
    assert_eq!(lab.finished(id).await["status"], "FAILED");
    assert_eq!(lab.order(id, "rollback").await.0, 200);
    assert_eq!(lab.finished(id).await["status"], "SUCCESSFUL");
    assert_eq!(lab.known_hosts().await, json!([]));

    let id = lab.add_host_under(None).await;
    lab.told(id, "waiting: agent").await;
    lab.hosts[0].start_agent();
    let task = lab.finished(id).await;
    assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
    let host = lab.known_hosts().await[0].clone();
    let told = json!([host["status"], host["hostAgentVersion"], host["architecture"]]);
    assert_eq!(told, json!(["AVAILABLE", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH]));
    assert!(lab.log(&task, "Pre check for create host").await.contains(", clock "));
}

/// A host that was just named is more likely misnamed than away for long.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_stays_silent_fails_after_half_a_minute_and_nothing_else_is_promised() {
    if !possible() {
        return;
    }
    let mut lab = Lab::start(1).await;
    lab.hosts[0].agent.as_mut().unwrap().stop();
    let begin = std::time::Instant::now();
    let id = lab.add_host_under(None).await;
    lab.told(id, "waiting: agent").await;
    let task = lab.get(&format!("/api/v2/tasks/instances/{id}")).await.unwrap();
    let subtasks = task["data"]["subtasks"].as_array().unwrap();
    let until = subtasks.iter().find_map(|subtask| subtask["waiting"]["until"].as_str()).unwrap();
    let left = until.parse::<jiff::Timestamp>().unwrap().duration_since(jiff::Timestamp::now());
    assert!(left.as_secs() <= 30, "{until} is in {left:#}");
    let task = lab.finished(id).await;
    let failure = &task["subtasks"][0]["failure"];
    assert_eq!((&task["status"], &failure["reason"]), (&json!("FAILED"), &json!("AGENT_UNREACHABLE")), "{task:#}");
    let waited = begin.elapsed().as_secs();
    assert!((25..50).contains(&waited), "{waited} s");
}

/// A retry keeps the host that the request wrote down.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_port_is_told_and_the_host_is_kept_until_the_rollback() {
    if !possible() {
        return;
    }
    let lab = Lab::start(1).await;
    let id = lab.add_host_under(Some(9)).await;
    for _ in 0..2 {
        let task = lab.finished(id).await;
        let failure = &task["subtasks"][1]["failure"];
        assert_eq!((&task["status"], &failure["reason"]), (&json!("FAILED"), &json!("HOST_UNFIT")), "{task:#}");
        let told = failure["message"].as_str().unwrap();
        assert_eq!(told, "port 9 is not the agent's, nobody listens on it");
        assert_eq!(lab.known_hosts().await[0]["status"], "NEW");
        assert_eq!(lab.order(id, "retry").await.0, 200);
    }
    lab.finished(id).await;
    assert_eq!(lab.order(id, "rollback").await.0, 200);
    assert_eq!(lab.finished(id).await["status"], "SUCCESSFUL");
    assert_eq!(lab.known_hosts().await, json!([]));
}

/// Nobody would start it again, so it stays.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_no_service_is_neither_restarted_nor_stopped() {
    if !possible() {
        return;
    }
    let lab = Lab::start(1).await;
    let added = lab.add_host_under(None).await;
    assert_eq!(lab.finished(added).await["status"], "SUCCESSFUL");
    for verb in ["restart", "stop"] {
        let (status, answer) = lab.post(&format!("{HOSTS}/1/agent/{verb}"), &Value::Null).await;
        assert_eq!(status, 200, "{answer}");
        let id = answer["data"]["id"].as_i64().unwrap();
        let task = lab.finished(id).await;
        let reason = &task["subtasks"][1]["failure"]["reason"];
        assert_eq!((&task["status"], reason), (&json!("FAILED"), &json!("NOT_UNDER_A_SERVICE_MANAGER")), "{task:#}");
        assert_eq!(lab.order(id, "rollback").await.0, 200);
        assert_eq!(lab.finished(id).await["status"], "SUCCESSFUL");
    }
    let agent = lab.get(&format!("{HOSTS}/1/agent")).await.unwrap();
    let told = (&agent["data"]["status"], &agent["data"]["processes"][0]["ports"]);
    assert_eq!(told, (&json!("STARTED"), &json!([62898, 62899])), "{agent:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_trusted_is_told_at_once() {
    if !possible() {
        return;
    }
    let lab = Lab::start(1).await;
    let added = lab.add_host_under(None).await;
    assert_eq!(lab.finished(added).await["status"], "SUCCESSFUL");
    let (status, answer) = lab.post(&format!("{HOSTS}/revoke"), &json!({"hostId": 1})).await;
    assert_eq!(status, 200, "{answer}");
    let (_, answer) = lab.post(&format!("{HOSTS}/1/agent/restart"), &Value::Null).await;
    let task = lab.finished(answer["data"]["id"].as_i64().unwrap()).await;
    let failure = &task["subtasks"][0]["failure"];
    assert_eq!((&task["status"], &failure["reason"]), (&json!("FAILED"), &json!("HOST_NOT_TRUSTED")), "{task:#}");
    assert!(failure["causes"][0].as_str().unwrap().contains("is revoked since"), "{failure:#}");
}
