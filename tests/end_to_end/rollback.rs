use crate::lab::{Lab, PACKAGE, possible};
use serde_json::{Value, json};

/// A parameter that the proxy does not know fails the task when the package is installed and the proxy runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_leaves_the_host_as_it_was() {
    if !possible() {
        return;
    }
    let lab = Lab::start(1).await;
    let parameter = json!({"parameters": [{"name": "no_such_parameter", "value": "1"}]});
    let cluster = lab.set_up(parameter).await;
    let id = lab.batch_add(cluster).await[0];
    let task = lab.finished(id).await;
    assert_eq!(task["status"], "FAILED", "{task:#}");
    let log = lab.log(&task, "Sync obproxy parameter").await;
    assert!(log.contains("no_such_parameter"), "{log}");
    assert_eq!(lab.hosts[0].packages().trim(), PACKAGE);
    assert_eq!(lab.hosts[0].processes().len(), 1);

    // A retry undoes and repeats only what failed.
    let (status, retried) = lab.post(&format!("/api/v2/tasks/instances/{id}/retry"), &Value::Null).await;
    assert_eq!((status, &retried["data"]["operation"]), (200, &json!("RETRY")), "{retried:#}");
    assert_eq!(lab.finished(id).await["status"], "FAILED");
    assert_eq!(lab.hosts[0].count_in_logs("scriptlet ran once"), 1);

    for expected in [200, 409] {
        let (status, answer) = lab.post(&format!("/api/v2/tasks/instances/{id}/rollback"), &Value::Null).await;
        assert_eq!(status, expected, "{answer:#}");
        let task = lab.finished(id).await;
        assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
        assert!(task["subtasks"].as_array().unwrap().iter().all(|subtask| subtask["status"] == "PENDING"));
        assert_eq!(lab.hosts[0].packages(), "");
        assert!(lab.hosts[0].processes().is_empty());
        assert!(!lab.hosts[0].root().join("home/admin/obproxy/2883").exists());
    }
    let cluster = lab.get(&format!("/api/v2/obproxy/clusters/{cluster}")).await.unwrap();
    assert_eq!(cluster["data"]["obproxies"], json!([]));
}

/// The first subtask waits for the agent; what the request wrote is still there for the next run.
#[tokio::test(flavor = "multi_thread")]
async fn a_subtask_that_waits_for_a_dead_agent_is_canceled_and_retried() {
    if !possible() {
        return;
    }
    let mut lab = Lab::start(1).await;
    let cluster = lab.set_up(json!({})).await;
    lab.hosts[0].agent.as_mut().unwrap().kill();
    let id = lab.batch_add(cluster).await[0];
    let path = format!("/api/v2/tasks/instances/{id}");
    let first = lab.get(&path).await.unwrap()["data"]["subtasks"][0]["id"].clone();
    // It may still be READY at first, which is refused.
    while lab.post(&format!("{path}/subtasks/{first}/cancel"), &Value::Null).await.0 == 409 {
        assert_eq!(lab.get(&path).await.unwrap()["data"]["status"], "RUNNING");
    }
    let task = lab.finished(id).await;
    assert_eq!((&task["status"], &task["subtasks"][0]["failure"]["reason"]), (&json!("FAILED"), &json!("CANCELED")));

    lab.hosts[0].start_agent();
    let (status, answer) = lab.post(&format!("{path}/subtasks/{first}/retry"), &Value::Null).await;
    assert_eq!((status, &answer["data"]["id"]), (200, &first), "{answer:#}");
    let task = lab.finished(id).await;
    assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
    assert_eq!(lab.hosts[0].processes().len(), 1);
}
