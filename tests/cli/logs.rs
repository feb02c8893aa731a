//! Logs of tasks, as they are and as they are written.

use insta::assert_snapshot;
use serde_json::json;

use crate::{
    fake::{End, Fake},
    tasks::{failed, installing, instance, task, words},
};

#[tokio::test]
async fn logs_are_printed_as_they_are() {
    let log = |id: u64| format!("{}/subtasks/{id}/log", instance(33002));
    let fake = Fake::start()
        .await
        .answers(&instance(33002), failed(33002))
        .answers(&log(34799), json!({"log": "############{EXECUTE}{2021-09-03T16:25:08}############\nready\n"}))
        .answers(&log(34807), json!({"log": "############{EXECUTE}{2021-09-03T16:25:09}############\nno space"}));
    let one = fake.run(&["task", "log", "33002", "34807"]).await;
    let all = fake.run(&["task", "log", "33002"]).await;
    assert_snapshot!(format!("{one}\n\n{all}"));
}

#[tokio::test]
async fn a_log_does_not_steer_the_terminal() {
    let log = format!("{}/subtasks/34807/log", instance(33002));
    let fake = Fake::start()
        .await
        .answers(&log, json!({"log": "\u{1b}]0;owned\u{7}\u{1b}[2Jone\r\n\ttwo\u{9b}31m\n"}))
        .answers(&log, json!({"log": "\u{1b}[2J\u{9b}31m\u{7f}"}));
    let text = fake.run(&["task", "log", "33002", "34807"]).await;
    assert!(text.contains("\u{fffd}]0;owned\u{fffd}\u{fffd}[2Jone\n\ttwo\u{fffd}31m\n"), "{text}");
    for format in ["json", "yaml"] {
        let data = fake.run(&["subtask", "log", "33002", "34807", "--output", format]).await;
        assert!(data.contains(r"\u001b[2J\u009b31m\u007f"), "as data it is whole, and harmless: {data}");
    }
}

/// JSON allows in its strings what begins a terminal's commands in one byte or two.
#[tokio::test]
async fn data_and_errors_hold_no_control_characters() {
    let hostile = "\u{1b}[2J\u{85}\u{9b}31m\u{7f}";
    let log = format!("{}/subtasks/34799/log/events", instance(33002));
    let fake = Fake::start()
        .await
        .answers("GET /api/v2/compute/hosts/1", json!({"id": 1, "alias": hostile, hostile: 1}))
        .refuses("GET /api/v2/compute/hosts/2", 400, json!({"code": 400, "message": hostile, "nextMove": hostile}))
        .streams(&log, &self::log(hostile, "SUCCESSFUL"), End::Closed);
    for line in ["host show 1", "host show 2", "task log 33002 34799 -f", &format!("host show 1 --{hostile}")] {
        for format in ["json", "yaml"] {
            let told = fake.run(&words(&format!("{line} -o {format}"))).await;
            let told = told.split_once('\n').unwrap().1;
            assert!(told.contains("31m"), "{told:?}");
            assert!(!told.chars().any(|char| char.is_control() && char != '\n'), "{told:?}");
        }
    }
}

/// A log of one piece, and its end.
fn log(text: &str, status: &str) -> String {
    let text = json!({"text": text});
    format!("event: log\nid: 5\ndata: {text}\n\nevent: end\nid: 5\ndata: {}\n\n", json!({"status": status}))
}

fn log_events(id: u64) -> String {
    format!("{}/subtasks/{id}/log/events", instance(33002))
}

#[tokio::test]
async fn the_logs_of_a_task_are_followed_to_its_end() {
    let fake = Fake::start()
        .await
        .answers(&instance(33002), installing(33002))
        .answers(&instance(33002), installing(33002))
        .answers(&instance(33002), failed(33002))
        .streams(&log_events(34799), &log("ready\n", "SUCCESSFUL"), End::Closed)
        .streams(&log_events(34807), &log("no space", "FAILED"), End::Closed)
        // The second attempt, which began between two questions: nothing new was written.
        .raw(&log_events(34807), 204, String::new());
    let text = fake.run(&words("task log 33002 -f")).await;
    assert_eq!(fake.header("Last-Event-ID").iter().flatten().count(), 1);
    let one = fake.run(&words("task log 33002 34799 --follow")).await;
    assert_snapshot!(format!("{text}\n\n{one}"));
}

#[tokio::test]
async fn the_log_of_what_is_undone_does_not_hold_up_the_others() {
    let undoing = |steps| {
        let mut task = task(33002, "RUNNING", steps);
        task["operation"] = json!("ROLLBACK");
        task["subtasks"].as_array_mut().unwrap().iter_mut().for_each(|step| step["operation"] = json!("ROLLBACK"));
        task
    };
    let mut undone = undoing(["PENDING"; 4]);
    undone["status"] = json!("SUCCESSFUL");
    let begun = format!("event: log\nid: 5\ndata: {}\n\n", json!({"text": "removed\n"}));
    let fake = Fake::start()
        .await
        .answers(&instance(33002), undoing(["RUNNING", "PENDING", "PENDING", "PENDING"]))
        .answers(&instance(33002), undoing(["PENDING"; 4]))
        .answers(&instance(33002), undone)
        .streams(&log_events(34799), &begun, End::Open);
    let told = fake.run(&words("task log 33002 --follow -o json")).await;
    assert!(told.contains(r#"{"subtaskId":34799,"text":"removed\n"}"#) && told.ends_with("exit 0"), "{told}");
}
