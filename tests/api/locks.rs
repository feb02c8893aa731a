//! Objects that tasks reserve: who has them is told, they are kept as long as they are needed, and can be given free.

use crate::support::{Lab, OBPROXY, failure};
use oblet::{
    coordinator::store::{
        locks::{self, holder},
        task::TaskId,
    },
    operations::{ObjectKind, ObjectLock},
};
use serde_json::{Value, json};

const BATCH_ADD: &str = "/api/v2/obproxy/clusters/1/obproxies/batchAdd";

fn on_host(host: i64, port: i64) -> Value {
    json!({"hostIds": [host], "sqlPort": port, "exporterPort": port + 1, "version": OBPROXY})
}

async fn add(lab: &Lab, host: i64, port: i64) -> Value {
    lab.post(BATCH_ADD, on_host(host, port)).await.data()["contents"][0].take()
}

/// Answers the message and what to do next.
async fn refused(lab: &Lab, path: &str, body: &Value) -> (String, String) {
    let answer = lab.post(path, body.clone()).await;
    assert_eq!(answer.status, 409, "{path}: {}", answer.text);
    let error = answer.json()["error"].take();
    let text = |member: &str| error[member].as_str().unwrap_or_default().to_owned();
    (text("message"), text("nextMove"))
}

fn verb(task: &Value, verb: &str) -> String {
    format!("/api/v2/tasks/instances/{}/{verb}", task["id"])
}

#[tokio::test]
async fn a_reserved_host_is_refused_to_another_task_and_its_holder_is_named() {
    let lab = Lab::furnished().await;
    let holder = add(&lab, 2, 2883).await;
    let (message, next) = refused(&lab, BATCH_ADD, &on_host(2, 3883)).await;
    let id = &holder["id"];
    let expected = format!("CMP07004: host 2 is reserved by task {id}, Install obproxy, RUNNING since ");
    let since = message.strip_prefix(&expected).unwrap_or_else(|| panic!("{message}"));
    assert_eq!(since.len(), "2026-01-01T00:00:00.000Z".len());
    assert!(since.ends_with('Z') && since.parse::<jiff::Timestamp>().is_ok(), "{since}");
    assert_eq!(next, format!("wait until task {id} has ended: oblet task watch {id}"));
    let proxies = lab.get("/api/v2/obproxy/clusters/1").await.data()["obproxies"].as_array().unwrap().len();
    assert_eq!(proxies, 1, "nothing is left of what was refused");
    add(&lab, 1, 3883).await;
}

#[tokio::test]
async fn a_failed_task_keeps_what_it_reserved_and_a_successful_one_gives_it_free() {
    let lab = Lab::furnished().await;
    let failed = lab.failed_task(failure()).await;
    let (message, next) = refused(&lab, BATCH_ADD, &on_host(2, 3883)).await;
    assert!(message.contains("FAILED since"), "{message}");
    for way in ["retry", "roll it back", "oblet task unlock"] {
        assert!(next.contains(way), "{next}");
    }
    let skipped = format!("/api/v2/tasks/instances/{}/subtasks/{}/skip", failed["id"], failed["subtasks"][1]["id"]);
    lab.post(&skipped, json!({})).await.data();
    lab.finish_from(&failed, 2).await;
    assert_eq!(lab.get(&verb(&failed, "")).await.status, 404);
    add(&lab, 2, 3883).await;
}

#[tokio::test]
async fn a_cluster_that_is_being_created_takes_no_proxies_yet() {
    let lab = Lab::furnished().await;
    let task = lab.post("/api/v2/obproxy/clusters", json!({"name": "second", "obLinks": []})).await.data();
    let path = "/api/v2/obproxy/clusters/2/obproxies/batchAdd";
    let (message, _) = refused(&lab, path, &on_host(1, 2883)).await;
    assert!(message.starts_with("ODP21010: obproxy cluster 2 is reserved by task"), "{message}");
    lab.finish(&task).await;
    lab.post(path, on_host(1, 2883)).await.data();
}

#[tokio::test]
async fn a_reserved_host_is_not_deleted() {
    let lab = Lab::furnished().await;
    let mut transaction = lab.store.begin().await.unwrap();
    let lock = ObjectLock::shared(ObjectKind::Host, 1);
    locks::take(&mut transaction, TaskId(1), &[lock]).await.unwrap().unwrap();
    transaction.commit().await.unwrap();
    for answer in [
        lab.delete("/api/v2/compute/hosts/1").await,
        lab.post("/api/v2/compute/hosts/batchDelete", json!({"hostIdList": [2, 1]})).await,
    ] {
        assert_eq!(answer.status, 409, "{}", answer.text);
        assert!(answer.text.contains("CMP07004: host 1 is reserved by task 1"), "{}", answer.text);
    }
    assert_eq!(lab.get("/api/v2/compute/hosts").await.data()["page"]["totalElements"], 2);
}

#[tokio::test]
async fn shared_locks_stand_beside_each_other_and_exclusive_ones_alone() {
    let lab = Lab::furnished().await;
    add(&lab, 1, 2883).await;
    let (one, two) = (TaskId(1), TaskId(2));
    let (shared, exclusive) =
        (ObjectLock::shared(ObjectKind::Obproxy, 90), ObjectLock::exclusive(ObjectKind::Obproxy, 90));
    let mut transaction = lab.store.begin().await.unwrap();
    let connection = &mut *transaction;
    for task in [one, two, one] {
        locks::take(connection, task, &[shared]).await.unwrap().unwrap();
    }
    let refused = locks::take(connection, two, &[exclusive]).await.unwrap().unwrap_err();
    assert_eq!((refused.task, refused.lock), (one, shared));
    assert_eq!(holder(connection, &shared).await.unwrap(), None);
    assert_eq!(locks::release(connection, one).await.unwrap(), [shared]);
    assert_eq!(locks::release(connection, one).await.unwrap(), []);
    locks::take(connection, two, &[exclusive]).await.unwrap().unwrap();
    assert_eq!(locks::take(connection, one, &[shared]).await.unwrap().unwrap_err().task, two);
    assert_eq!(holder(connection, &shared).await.unwrap().unwrap().task, two);
}

/// A lock finds those that were taken before it in the same request.
#[tokio::test]
async fn tasks_that_are_made_together_are_refused_what_one_of_them_has() {
    let lab = Lab::furnished().await;
    add(&lab, 1, 2883).await;
    let (one, two) = (TaskId(1), TaskId(2));
    let shared = |id| ObjectLock::shared(ObjectKind::Obproxy, id);
    let exclusive = |id| ObjectLock::exclusive(ObjectKind::Obproxy, id);
    let cases = [
        (vec![(one, shared(90)), (two, shared(90)), (one, exclusive(91)), (two, exclusive(92))], None),
        (vec![(one, shared(90)), (two, shared(90)), (TaskId(3), exclusive(90))], Some((one, shared(90)))),
        (vec![(one, exclusive(91)), (two, exclusive(91))], Some((one, exclusive(91)))),
        (vec![(one, exclusive(91)), (two, shared(91))], Some((one, exclusive(91)))),
    ];
    for (wanted, refused) in cases {
        let mut transaction = lab.store.begin().await.unwrap();
        let taken = locks::take_first(&mut transaction, &wanted).await.unwrap();
        assert_eq!(taken.err().map(|holder| (holder.task, holder.lock)), refused, "{wanted:?}");
    }
}

#[tokio::test]
async fn a_task_at_rest_is_made_to_give_free_what_it_reserved_and_that_is_written_down() {
    let lab = Lab::furnished().await;
    let failed = lab.failed_task(failure()).await;
    let expected = json!([
        {"object": "host 2"}, {"object": "obproxy 1"}, {"object": "obproxy cluster 1"},
    ]);
    let path = verb(&failed, "releaseLocks");
    let planned = lab.post(&format!("{path}?dryRun=true"), json!({})).await.data();
    assert_eq!(planned["contents"], expected);
    assert_eq!(lab.post(&path, json!({})).await.data()["contents"], expected);

    let events = lab.get("/api/v2/audit/events?size=1").await.data();
    let event = &events["contents"][0];
    assert_eq!(event["action"], "task.releaseLocks");
    assert_eq!(event["object"], format!("task {}", failed["id"]));
    assert_eq!(event["detail"], "host 2, obproxy 1, obproxy cluster 1");
    assert_eq!((&event["user"], event["traceId"].as_str().unwrap().len()), (&json!("admin"), 16));

    let (message, _) = refused(&lab, &path, &json!({})).await;
    assert!(message.starts_with("TSK10007") && message.contains("has reserved nothing"), "{message}");
    add(&lab, 2, 3883).await;
}

#[tokio::test]
async fn a_running_task_keeps_what_it_reserved() {
    let lab = Lab::furnished().await;
    let running = add(&lab, 2, 2883).await;
    let (message, next) = refused(&lab, &verb(&running, "releaseLocks"), &json!({})).await;
    assert!(message.starts_with("TSK10007") && message.contains("EXECUTE RUNNING"), "{message}");
    assert!(next.contains("cancel the task"), "{next}");
    assert_eq!(lab.post("/api/v2/tasks/instances/999/releaseLocks", json!({})).await.status, 404);
}

#[tokio::test]
async fn a_decision_is_refused_while_another_task_has_what_was_released() {
    let lab = Lab::furnished().await;
    let failed = lab.failed_task(failure()).await;
    lab.post(&verb(&failed, "releaseLocks"), json!({})).await.data();
    let other = add(&lab, 2, 3883).await;
    let skip = format!("subtasks/{}/skip", failed["subtasks"][1]["id"]);
    for decision in ["retry", "rollback", &skip, "retry?dryRun=true"] {
        let (message, _) = refused(&lab, &verb(&failed, decision), &json!({})).await;
        let expected = format!("CMP07004: host 2 is reserved by task {}", other["id"]);
        assert!(message.starts_with(&expected), "{decision}: {message}");
    }
    assert_eq!(lab.get(&format!("/api/v2/tasks/instances/{}", failed["id"])).await.data(), failed, "nothing changed");

    lab.finish(&other).await;
    lab.post(&verb(&failed, "rollback"), json!({})).await.data();
}
