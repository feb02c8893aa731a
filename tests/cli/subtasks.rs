//! Commands about the steps of a task.

use insta::assert_snapshot;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::fake::{End, Fake};

const PATH: &str = "/api/v2/tasks/instances/33002/subtasks/34807";
const FOLLOW: [&str; 5] = ["subtask", "log", "33002", "34807", "--follow"];

fn post(verb: &str) -> String {
    format!("POST {PATH}/{verb}")
}

fn events() -> String {
    format!("GET {PATH}/log/events")
}

fn subtask(status: &str, operation: &str) -> Value {
    json!({"id": 34807, "name": "Install rpm", "status": status, "operation": operation, "runTime": 2})
}

fn written(id: u64, text: &str) -> String {
    format!("event: log\nid: {id}\ndata: {}\n\n", json!({"text": text}))
}

fn ended(id: u64) -> String {
    format!("event: end\nid: {id}\ndata: {}\n\n", json!({"status": "SUCCESSFUL"}))
}

#[tokio::test]
async fn a_subtask_is_retried_skipped_or_canceled() {
    let fake = Fake::start()
        .await
        .answers(&post("retry"), subtask("READY", "RETRY"))
        .answers(&post("skip"), Value::Null)
        .answers(&post("cancel"), Value::Null);
    let mut told = String::new();
    for command in [
        &["subtask", "retry", "33002", "34807"][..],
        &["subtask", "skip", "33002", "34807", "--yes"],
        &["subtask", "cancel", "33002", "34807", "-o", "json", "-y"],
    ] {
        told += &format!("{}\n\n", fake.run(command).await);
    }
    assert_snapshot!(told + &fake.requests());
}

#[tokio::test]
async fn a_dry_run_shows_the_subtask_and_needs_no_confirmation() {
    let fake = Fake::start()
        .await
        .answers(&post("retry"), subtask("READY", "RETRY"))
        .answers(&post("skip"), subtask("SUCCESSFUL", "SKIP"))
        .answers(&post("cancel"), subtask("CANCELING", "CANCEL"));
    let mut told = String::new();
    for verb in ["retry", "skip", "cancel"] {
        told += &format!("{}\n\n", fake.run(&["subtask", verb, "33002", "34807", "--dry-run"]).await);
    }
    assert_snapshot!(told + &fake.requests());
}

#[tokio::test]
async fn subtasks_are_listed_and_shown() {
    let first = json!({"id": 34799, "name": "Prepare", "status": "SUCCESSFUL", "operation": "EXECUTE", "runTime": 1,
        "startTime": "2021-09-03T16:25:08.004+08:00", "finishTime": "2021-09-03T16:25:08.704+08:00"});
    let mut second = subtask("FAILED", "EXECUTE");
    second["upstreams"] = json!([34799]);
    second["failure"] =
        json!({"host": "10.0.0.2", "message": "no space left", "reason": "DISK_FULL", "nextMove": "free 80 MiB"});
    let task = json!({"id": 33002, "name": "Install obproxy", "status": "FAILED", "subtasks": [second, first]});
    let fake = Fake::start().await.answers("GET /api/v2/tasks/instances/33002", task);
    let mut told = String::new();
    for command in [
        &["subtask", "list", "33002"][..],
        &["subtask", "list", "33002", "-o", "name"],
        &["subtask", "show", "33002", "34807"],
        &["subtask", "show", "33002", "34799", "-o", "json"],
        &["subtask", "show", "33002", "1"],
    ] {
        told += &format!("{}\n\n", fake.run(command).await);
    }
    assert_snapshot!(told);
}

#[tokio::test]
async fn the_log_of_a_subtask_is_printed_as_it_is() {
    let fake = Fake::start().await.answers(&format!("GET {PATH}/log"), json!({"log": "one\ntwo"}));
    let output = fake.command(&["subtask", "log", "33002", "34807"]).output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one\ntwo\n");
}

#[tokio::test]
async fn a_log_is_followed_to_its_end() {
    let stream = format!("{}: keep alive\n\n{}{}", written(4, "one\n"), written(9, "two\nth"), ended(9));
    let fake = Fake::start().await.streams(&events(), &stream, End::Closed);
    let text = fake.run(&FOLLOW).await;
    let json = fake.run(&["subtask", "log", "33002", "34807", "-f", "-o", "json", "--quiet"]).await;
    assert_snapshot!(format!("{text}\n\n{json}"));
}

#[tokio::test]
async fn a_log_goes_on_where_the_connection_broke() {
    let half = format!("{}event: log\nid: 9\ndata: {{\"te", written(4, "one\n"));
    let away = json!({"code": 10999, "message": "COM10999: the coordinator stops"});
    let fake = Fake::start()
        .await
        .streams(&events(), &half, End::Broken)
        .refuses(&events(), 503, away)
        .streams(&events(), &written(9, "two\n"), End::Closed)
        .streams(&events(), &ended(9), End::Closed);
    let told = fake.run(&FOLLOW).await;
    let seen = fake.header("Last-Event-ID");
    assert_eq!(seen, [None, Some("4".into()), Some("4".into()), Some("9".into())]);
    assert_snapshot!(told);
}

#[tokio::test]
async fn a_log_of_which_all_was_read_ends() {
    let fake =
        Fake::start().await.streams(&events(), &written(3, "one"), End::Closed).raw(&events(), 204, String::new());
    assert_snapshot!(fake.run(&FOLLOW).await);
}

#[tokio::test]
async fn what_is_no_log_is_not_followed() {
    let absent = Fake::start().await;
    let page = Fake::start().await.raw(&events(), 200, "<html>welcome</html>".into());
    let wrong = Fake::start().await.streams(&events(), "event: log\ndata: one\n\n", End::Closed);
    let mut told = String::new();
    for fake in [absent, page, wrong] {
        told += &format!("{}\n\n", fake.run(&FOLLOW).await);
    }
    assert_snapshot!(told);
}

#[tokio::test]
async fn ctrl_c_ends_the_following_alone() {
    let fake = Fake::start().await.streams(&events(), &written(4, "one\n"), End::Open);
    let mut child = fake.command(&FOLLOW).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // With the first line the first answer, and so the signal handler, is in place.
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("one"));
    kill(Pid::from_raw(child.id().unwrap() as i32), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_snapshot!(fake.tell(&FOLLOW, &output));
}
