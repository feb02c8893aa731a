//! Who changed what is written down; what waits says for what; a full disk stops what is new and nothing else.

use crate::support::{Lab, OBPROXY, failure};
use oblet::{
    coordinator::{
        engine::Wait,
        store::{
            Store, now_micros,
            task::{
                self, TaskId,
                logs::{self, LogPosition},
            },
        },
    },
    graph::{Event, NodeIndex, TaskStatus},
};
use serde_json::{Value, json};

fn proxies(host: i64) -> Value {
    json!({"hostIds": [host], "sqlPort": 2883, "exporterPort": 2884, "version": OBPROXY})
}

const BATCH_ADD: &str = "/api/v2/obproxy/clusters/1/obproxies/batchAdd";

fn task(task: &Value) -> String {
    format!("/api/v2/tasks/instances/{}", task["id"])
}

#[tokio::test]
async fn every_change_is_written_down_and_what_was_refused_is_not() {
    let lab = Lab::furnished().await;
    let failed = lab.failed_task(failure()).await;
    let path = task(&failed);
    let subtask = format!("{path}/subtasks/{}", failed["subtasks"][1]["id"]);
    assert_eq!(lab.post(&format!("{path}/cancel"), json!({})).await.status, 409);
    lab.post(&format!("{subtask}/retry"), json!({})).await.data();
    lab.post(&format!("{path}/cancel"), json!({})).await.data();
    lab.post(&format!("{path}/rollback"), json!({})).await.data();
    lab.delete("/api/v2/compute/hosts/1").await.data();
    let added = lab.add_hosts(&["192.0.2.3"]).await.data()["contents"][0]["id"].take();

    let page = lab.get("/api/v2/audit/events?size=100").await.data();
    let told = page["contents"].as_array().unwrap().iter();
    let told: Vec<String> =
        told.map(|event| format!("{} {}: {}", event["action"], event["object"], event["detail"])).collect();
    let id = &failed["id"];
    let expected = [
        format!(r#""host.add" "host 3": "192.0.2.3, by task {added}""#),
        r#""host.delete" "host 1": "192.0.2.1""#.to_owned(),
        format!(r#""task.rollback" "task {id}": "Install obproxy""#),
        format!(r#""task.cancel" "task {id}": "Install obproxy""#),
        format!(r#""subtask.retry" "subtask {} of task {id}": "Install obproxy""#, failed["subtasks"][1]["id"]),
        format!(r#""obproxy.add" "obproxy 1": "on host 2, by task {id}""#),
        format!(r#""package.upload" "package 1": "{OBPROXY}""#),
        r#""obproxyCluster.create" "obproxy cluster 1": "test, by task 1""#.to_owned(),
    ];
    assert_eq!(told, expected);
    let second = lab.get("/api/v2/audit/events?size=4&page=2").await.data();
    assert_eq!(second["contents"].as_array().unwrap().len(), 4);
    assert_eq!(second["page"]["totalElements"], 8);
    assert_eq!(second["contents"][0]["user"], "admin");
}

#[tokio::test]
async fn a_running_task_is_canceled_and_a_canceled_one_is_not_canceled_again() {
    let lab = Lab::furnished().await;
    let made = lab.post(BATCH_ADD, proxies(1)).await.data()["contents"][0].take();
    lab.begin(&made).await;
    let path = format!("{}/cancel", task(&made));
    let canceled = lab.post(&path, json!({})).await.data();
    assert_eq!((&canceled["operation"], &canceled["status"]), (&json!("CANCEL"), &json!("RUNNING")));
    assert_eq!(canceled["subtasks"][0]["status"], "CANCELING");
    let again = lab.post(&path, json!({})).await;
    assert_eq!(again.status, 409, "{}", again.text);
    assert!(again.text.contains("TSK10007") && again.text.contains("CANCEL RUNNING"), "{}", again.text);
}

#[tokio::test]
async fn a_subtask_that_waits_says_for_what_and_until_when() {
    let lab = Lab::furnished().await;
    let made = lab.post(BATCH_ADD, proxies(1)).await.data()["contents"][0].take();
    let waiting = async |index: usize| lab.get(&task(&made)).await.data()["subtasks"][index].get("waiting").cloned();
    assert_eq!(waiting(0).await, Some(json!({"for": "its turn"})));
    let first = format!("{} ({})", made["subtasks"][0]["name"].as_str().unwrap(), made["subtasks"][0]["id"]);
    assert_eq!(waiting(1).await, Some(json!({"for": first})));

    lab.begin(&made).await;
    assert_eq!(waiting(0).await, None, "it runs");
    let wait = Wait { what: "the agent of host 1".into(), until: now_micros() };
    lab.engine.waits.lock().unwrap().insert(NodeIndex(0), wait);
    let told = waiting(0).await.unwrap();
    assert_eq!(told["for"], "the agent of host 1");
    assert!(told["until"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());

    lab.post(&format!("{}/cancel", task(&made)), json!({})).await.data();
    assert_eq!(waiting(1).await, Some(json!({"for": "a decision about the canceled task"})));
    let ended = Event::Failed { node: NodeIndex(0), attempt: 1, failure: failure() };
    lab.happens(&made, vec![ended]).await;
    for index in 0..12 {
        assert_eq!(waiting(index).await, None, "a task at rest waits for nobody but its operator");
    }
}

#[tokio::test]
async fn of_many_that_are_waited_for_three_are_named() {
    let lab = Lab::furnished().await;
    lab.have_hosts(&["192.0.2.3", "192.0.2.4", "192.0.2.5"]).await;
    let mut cluster = json!({"name": "wide", "obLinks": [], "obproxyInstallParam": proxies(1)});
    cluster["obproxyInstallParam"]["hostIds"] = json!([1, 2, 3, 4, 5]);
    let made = lab.post("/api/v2/obproxy/clusters", cluster).await.data();
    let shown = lab.get(&task(&made)).await.data();
    let last = shown["subtasks"].as_array().unwrap().last().unwrap();
    let waits = last["waiting"]["for"].as_str().unwrap();
    assert_eq!(waits.matches("Update obproxy status (").count(), 3, "{waits}");
    assert!(waits.ends_with(" and 2 more"), "{waits}");
}

#[tokio::test]
async fn a_task_that_cannot_be_taken_up_says_why_and_can_be_made_to_give_free_what_it_has() {
    let lab = Lab::furnished().await;
    let made = lab.post(BATCH_ADD, proxies(1)).await.data()["contents"][0].take();
    lab.begin(&made).await;
    let mut writer = lab.store.begin().await.unwrap();
    sqlx::raw_sql(
        "UPDATE task_events SET payload = '{\"kind\": \"from the future\", \"by\": \"x\"}' WHERE task_id = 2",
    )
    .execute(&mut *writer)
    .await
    .unwrap();
    let (id, why) = (TaskId(made["id"].as_i64().unwrap()), Some("event 1 of the task is damaged"));
    task::set_problem(&mut writer, id, 1, why, TaskStatus::Failed).await.unwrap();
    writer.commit().await.unwrap();

    let shown = lab.get(&task(&made)).await.data();
    assert_eq!((&shown["status"], &shown["problem"]), (&json!("FAILED"), &json!("event 1 of the task is damaged")));
    assert_eq!(lab.get("/api/v2/tasks/instances?size=1").await.data()["contents"][0]["problem"], shown["problem"]);
    for verb in ["retry", "rollback?dryRun=true"] {
        let answer = lab.post(&format!("{}/{verb}", task(&made)), json!({})).await;
        assert_eq!(answer.status, 409, "{}", answer.text);
        let error = answer.json()["error"].take();
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with("TSK10007") && message.contains("needs an operator"), "{message}");
        assert!(error["nextMove"].as_str().unwrap().contains("oblet task unlock"), "{error}");
    }
    assert_eq!(lab.post(BATCH_ADD, proxies(1)).await.status, 409, "its host is reserved");
    lab.post(&format!("{}/releaseLocks", task(&made)), json!({})).await.data();
    let told = lab.get(&format!("{}/events", task(&made))).await;
    assert!(told.text.contains(r#""kind":"dispatched""#) && told.text.contains("event: rest"), "{}", told.text);
}

async fn write_log(store: &Store, task: &Value, text: &str) {
    let id = TaskId(task["id"].as_i64().unwrap());
    let mut transaction = store.begin().await.unwrap();
    logs::append_log(&mut transaction, (id, NodeIndex(1), 1), LogPosition::default(), text).await.unwrap();
    transaction.commit().await.unwrap();
}

async fn log(lab: &Lab, of: &Value, index: usize) -> String {
    let path = format!("{}/subtasks/{}/log", task(of), of["subtasks"][index]["id"]);
    lab.get(&path).await.data()["log"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn old_logs_give_way_by_age_and_by_size_and_say_so() {
    let lab = Lab::furnished().await;
    let old = lab.failed_task(failure()).await;
    let running = lab.post(BATCH_ADD, proxies(1)).await.data()["contents"][0].take();
    lab.begin(&running).await;
    for task in [&old, &running] {
        write_log(&lab.store, task, "häder\n").await;
    }
    let (never, always) = (0, i64::MAX);
    assert_eq!(logs::expire(&lab.store, never, 1 << 20).await.unwrap(), 0);
    assert_eq!(log(&lab, &old, 1).await, "häder\n");
    assert_eq!(logs::expire(&lab.store, never, 14).await.unwrap(), 0, "14 bytes are not more than 14");
    assert!(logs::expire(&lab.store, never, 13).await.unwrap() > 0);
    let text = log(&lab, &old, 1).await;
    assert!(
        text.starts_with("[what was written before 20") && text.ends_with("Z was removed by retention]\n"),
        "{text}"
    );
    assert_eq!(log(&lab, &old, 2).await, "", "it has never run");
    assert_eq!(logs::expire(&lab.store, always, 0).await.unwrap(), 0, "there is nothing more of tasks at rest");

    let ended = Event::Failed { node: NodeIndex(0), attempt: 1, failure: failure() };
    lab.happens(&running, vec![ended]).await;
    assert_eq!(logs::expire(&lab.store, always, 1 << 20).await.unwrap(), 1);
    assert!(log(&lab, &running, 0).await.contains("removed by retention"));

    let mut writer = lab.store.begin().await.unwrap();
    let future = sqlx::query("UPDATE tasks SET finished_at = ?, logs_removed_at = NULL WHERE id = ?");
    let future = future.bind(now_micros() + 3_600_000_000).bind(old["id"].as_i64().unwrap());
    future.execute(&mut *writer).await.unwrap();
    writer.commit().await.unwrap();
    assert_eq!(logs::expire(&lab.store, always, 1 << 20).await.unwrap(), 1);
    assert_eq!(logs::expire(&lab.store, always, 1 << 20).await.unwrap(), 0, "the clock was set back");
}

#[tokio::test]
async fn a_log_that_is_too_long_keeps_its_beginning_and_says_so_once() {
    let lab = Lab::furnished().await;
    let task = lab.failed_task(failure()).await;
    let (id, node) = (TaskId(task["id"].as_i64().unwrap()), NodeIndex(1));
    let text = "ä".repeat(300 << 10);
    for _ in 0..4 {
        // Each time as after a restart of the coordinator.
        let position = logs::log_position(lab.store.readers(), id, node, 1).await.unwrap();
        let mut transaction = lab.store.begin().await.unwrap();
        logs::append_log(&mut transaction, (id, node, 1), position, &text).await.unwrap();
        transaction.commit().await.unwrap();
    }
    let log = log(&lab, &task, 1).await;
    assert_eq!(log.matches("[truncated").count(), 1);
    let (kept, _) = log.split_once("\n[truncated").unwrap();
    assert_eq!(kept.len(), 1 << 20);
}

/// Lets the store grow to so many pages and no further. The limit belongs to the one connection that writes, which the
/// first refusal may cost.
async fn limit_pages(store: &Store, more: i64) {
    let mut writer = store.begin().await.unwrap();
    let used: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut *writer).await.unwrap();
    let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {}", used + more));
    sqlx::raw_sql(limit).execute(&mut *writer).await.unwrap();
    writer.commit().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_stops_what_is_new_and_is_read_all_the_same() {
    let lab = Lab::furnished().await;
    let failed = lab.failed_task(failure()).await;
    limit_pages(&lab.store, 0).await;
    // Until what is free within the pages is used up.
    let mut refused = None;
    for number in 0..64 {
        let body = json!({"name": format!("cluster-{number}"), "obLinks": []});
        let answer = lab.post("/api/v2/obproxy/clusters", body).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let answer = refused.expect("the disk is never full");
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert_eq!(answer.headers["retry-after"], "5");
    assert!(answer.json()["error"]["nextMove"].as_str().unwrap().contains("free space"), "{}", answer.text);
    assert_eq!(lab.get(&task(&failed)).await.data(), failed);

    limit_pages(&lab.store, 1_000_000).await;
    lab.post(BATCH_ADD, proxies(1)).await.data();
}
