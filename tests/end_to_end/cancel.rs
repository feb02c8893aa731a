use crate::lab::{Lab, command_lines, possible, wait_for};
use serde_json::{Value, json};

/// rpm would sleep far beyond the patience of the test.
#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_task_ends_with_its_processes_and_can_be_rolled_back() {
    if !possible() {
        return;
    }
    let lab = Lab::start(1).await;
    let package = lab.build_package_with("echo installing >> \"$HOME/../scriptlets\"; sleep 600");
    let cluster = lab.set_up_with(&package, json!({})).await;
    let id = lab.batch_add(cluster).await[0];
    let host = &lab.hosts[0];
    wait_for("rpm", || host.directory.join("scriptlets").exists()).await;

    let path = format!("/api/v2/tasks/instances/{id}");
    let (status, answer) = lab.post(&format!("{path}/cancel"), &Value::Null).await;
    assert_eq!(status, 200, "{answer:#}");
    let task = lab.finished(id).await;
    assert_eq!((&task["status"], &task["operation"]), (&json!("FAILED"), &json!("CANCEL")), "{task:#}");
    let of_the_host = |line: &&String| line.contains(&host.directory.display().to_string());
    let left: Vec<String> =
        command_lines().values().filter(of_the_host).filter(|line| !line.contains("agent.toml")).cloned().collect();
    assert!(left.is_empty(), "still runs: {left:?}");

    let (status, answer) = lab.post(&format!("{path}/rollback"), &Value::Null).await;
    assert_eq!(status, 200, "{answer:#}");
    let task = lab.finished(id).await;
    assert_eq!((&task["status"], &task["operation"]), (&json!("SUCCESSFUL"), &json!("ROLLBACK")), "{task:#}");
    assert_eq!(host.packages(), "");
    assert!(host.processes().is_empty());
}
