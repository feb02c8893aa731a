//! What an operator decides about a task, and what would happen if a task were made.

use crate::support::{Lab, OBPROXY, failure};
use serde_json::{Value, json};

fn task(id: &Value) -> String {
    format!("/api/v2/tasks/instances/{id}")
}

fn subtask(task: &Value, index: usize) -> String {
    format!("/api/v2/tasks/instances/{}/subtasks/{}", task["id"], task["subtasks"][index]["id"])
}

async fn decide(lab: &Lab, path: &str) -> Value {
    lab.post_text(path, String::new()).await.data()
}

/// Answers the message and what to do next.
async fn refused(lab: &Lab, path: &str, status: u16) -> (String, String) {
    let answer = lab.post_text(path, String::new()).await;
    assert_eq!(answer.status, status, "{path}: {}", answer.text);
    let error = answer.json()["error"].take();
    let text = |member: &str| error[member].as_str().unwrap_or_default().to_owned();
    (text("message"), text("nextMove"))
}

#[tokio::test]
async fn a_failed_task_is_retried_by_who_asked() {
    let lab = Lab::furnished().await;
    let failed = lab.failed_task(failure()).await;
    let retried = decide(&lab, &format!("{}/retry", task(&failed["id"]))).await;
    assert_eq!((&retried["status"], &retried["operation"]), (&json!("RUNNING"), &json!("RETRY")));
    assert_eq!(retried, lab.get(&task(&failed["id"])).await.data(), "answered as when it is asked for");
    let row = sqlx::query_scalar::<_, String>("SELECT payload FROM task_events ORDER BY task_id DESC, sequence DESC");
    let event = row.fetch_one(lab.store.readers()).await.unwrap();
    assert!(event.contains(r#""admin""#), "{event}");

    let (message, next) = refused(&lab, &format!("{}/retry", task(&failed["id"])), 409).await;
    assert!(message.starts_with("TSK10007") && message.contains("RETRY RUNNING"), "{message}");
    assert_eq!(next, "wait until the task has ended");
}

#[tokio::test]
async fn a_failed_task_is_rolled_back_and_a_running_one_is_not() {
    let lab = Lab::furnished().await;
    let failed = lab.failed_task(failure()).await;
    let path = format!("{}/rollback", task(&failed["id"]));
    assert_eq!(decide(&lab, &path).await["operation"], "ROLLBACK");
    let (message, _) = refused(&lab, &path, 409).await;
    assert!(message.starts_with("TSK10007") && message.contains("ROLLBACK RUNNING"), "{message}");
}

#[tokio::test]
async fn a_failed_subtask_is_retried_or_skipped() {
    let lab = Lab::furnished().await;
    let failed = lab.failed_task(failure()).await;
    let retried = decide(&lab, &format!("{}/retry", subtask(&failed, 1))).await;
    assert_eq!((&retried["id"], &retried["operation"]), (&failed["subtasks"][1]["id"], &json!("RETRY")));

    let lab = Lab::furnished().await;
    let failed = lab.failed_task(failure()).await;
    assert_eq!(decide(&lab, &format!("{}/skip", subtask(&failed, 1))).await, Value::Null);
    assert_eq!(lab.get(&task(&failed["id"])).await.data()["subtasks"][1]["status"], "SUCCESSFUL");
}

#[tokio::test]
async fn a_decision_that_the_state_does_not_allow_names_the_state() {
    let lab = Lab::furnished().await;
    let failed = lab.failed_task(failure()).await;
    let cases = [("retry", 0, "TSK10016"), ("skip", 0, "TSK10010"), ("cancel", 1, "TSK10016")];
    for (verb, index, code) in cases {
        let (message, next) = refused(&lab, &format!("{}/{verb}", subtask(&failed, index)), 409).await;
        let state = failed["subtasks"][index]["status"].as_str().unwrap();
        assert!(message.starts_with(code) && message.contains(state), "{verb}: {message}");
        assert!(!next.is_empty(), "{verb} says no next move");
    }
    assert_eq!(lab.get(&task(&failed["id"])).await.data(), failed, "nothing changed");
}

#[tokio::test]
async fn a_task_or_subtask_that_does_not_exist_is_not_found() {
    let lab = Lab::furnished().await;
    let failed = lab.failed_task(failure()).await;
    let paths = [
        "/api/v2/tasks/instances/999/retry".to_owned(),
        "/api/v2/tasks/instances/999/rollback".to_owned(),
        "/api/v2/tasks/instances/999/subtasks/1/skip".to_owned(),
        format!("{}/subtasks/1/cancel", task(&failed["id"])),
    ];
    for path in paths {
        let (message, _) = refused(&lab, &path, 404).await;
        assert!(message.starts_with("TSK10001"), "{path}: {message}");
    }
}

const CLUSTERS: &str = "/api/v2/obproxy/clusters";
const BATCH_ADD: &str = "/api/v2/obproxy/clusters/1/obproxies/batchAdd";

fn installation() -> Value {
    json!({"hostIds": [1, 2], "sqlPort": 2883, "exporterPort": 2884, "version": OBPROXY})
}

#[tokio::test]
async fn a_dry_run_checks_and_answers_and_writes_nothing() {
    let lab = Lab::furnished().await;
    let woken = lab.engine.woken.lock().unwrap().clone();
    let planned = lab.post(&format!("{BATCH_ADD}?dryRun=true"), installation()).await.data();
    let planned = planned["contents"].as_array().unwrap();
    assert_eq!(planned.len(), 2);
    for task in planned {
        assert!(task.get("id").is_none(), "{task}");
        assert_eq!(task["subtasks"].as_array().unwrap().len(), 12);
    }
    let cluster = json!({"name": "planned", "obLinks": [], "obproxyInstallParam": installation()});
    let task = lab.post(&format!("{CLUSTERS}?dryRun=true"), cluster).await.data();
    assert!(task.get("id").is_none() && !task["subtasks"].as_array().unwrap().is_empty(), "{task}");

    let wrong = json!({"hostIds": [9], "sqlPort": 2883, "exporterPort": 2884, "version": OBPROXY});
    assert_eq!(lab.post(&format!("{BATCH_ADD}?dryRun=true"), wrong).await.status, 404);
    assert_eq!(*lab.engine.woken.lock().unwrap(), woken);
    assert_eq!(lab.get(CLUSTERS).await.data()["page"]["totalElements"], 1);
    assert_eq!(lab.get(&format!("{CLUSTERS}/1")).await.data()["obproxies"], json!([]));
    assert_eq!(lab.get("/api/v2/tasks/instances").await.data()["page"]["totalElements"], 1);
    lab.post(&format!("{BATCH_ADD}?dryRun=false"), installation()).await.data();
}

#[tokio::test]
async fn a_misspelt_dry_run_never_acts() {
    let lab = Lab::furnished().await;
    for query in ["dryrun=true", "dryRun", "dryRun=", "dryRun=yes", "dryRun=true&dryRun=false", "dryRun=true&x=1"] {
        let answer = lab.post(&format!("{BATCH_ADD}?{query}"), installation()).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text);
    }
    let failed = lab.failed_task(failure()).await;
    assert!(refused(&lab, &format!("{}/rollback?dry_run=true", task(&failed["id"])), 400).await.0.contains("dry_run"));
    assert_eq!(lab.delete("/api/v2/compute/hosts/1?dryrun=true").await.status, 400);
    assert_eq!(lab.get("/api/v2/compute/hosts/1").await.status, 200);
    assert_eq!(lab.get(&task(&failed["id"])).await.data(), failed);
    assert_eq!(lab.get(&format!("{CLUSTERS}/1")).await.data()["obproxies"].as_array().unwrap().len(), 1);
}
