use crate::lab::{Lab, PACKAGE, possible};
use oblet::{
    api::serve,
    coordinator::{
        config::{Config, SettingFlags},
        store::tasks::TaskId,
    },
    graph::Command,
};
use serde_json::json;

/// A parameter that the proxy does not know fails the task when the package is installed and the proxy runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_leaves_the_host_as_it_was() {
    if !possible() {
        return;
    }
    let mut lab = Lab::prepare(1);
    lab.hosts[0].start_agent();
    let path = lab.directory.path().join("coordinator/coordinator.toml");
    let config = Config::load(&SettingFlags { config: Some(path), ..SettingFlags::default() }).unwrap();
    let coordinator = serve::start(&config).await.unwrap();
    lab.connect().await;
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
    coordinator.engine().command(TaskId(id), Command::Retry, "admin").await.unwrap();
    assert_eq!(lab.finished(id).await["status"], "FAILED");
    assert_eq!(lab.hosts[0].count_in_logs("scriptlet ran once"), 1);

    for _ in 0..2 {
        coordinator.engine().command(TaskId(id), Command::Rollback, "admin").await.ok();
        let task = lab.finished(id).await;
        assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
        assert!(task["subtasks"].as_array().unwrap().iter().all(|subtask| subtask["status"] == "PENDING"));
        assert_eq!(lab.hosts[0].packages(), "");
        assert!(lab.hosts[0].processes().is_empty());
        assert!(!lab.hosts[0].root().join("home/admin/obproxy/2883").exists());
    }
    let cluster = lab.get(&format!("/api/v2/obproxy/clusters/{cluster}")).await.unwrap();
    assert_eq!(cluster["data"]["obproxies"], json!([]));
    coordinator.stop().await;
}
