//! Server-sent events: a task and a log are followed to their end, also by who comes back in between.

use crate::{
    contract,
    support::{Lab, OBPROXY, failure},
};
use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, StatusCode},
};
use futures_util::StreamExt as _;
use oblet::{
    coordinator::store::task::{
        TaskId,
        logs::{self, LogPosition},
    },
    graph::{Direction, Effect, Event, NodeIndex},
};
use serde_json::{Value, json};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// An event as a client reads it.
#[derive(Debug, PartialEq)]
struct Told {
    name: String,
    id: String,
    data: Value,
}

struct Stream {
    status: StatusCode,
    headers: HeaderMap,
    body: BodyDataStream,
    text: String,
    path: String,
}

impl Stream {
    async fn open(lab: &Lab, path: &str, last: Option<&str>) -> Self {
        let mut request = Lab::signed("GET", path);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = lab.respond(request.body(Body::empty()).unwrap()).await;
        let (parts, body) = response.into_parts();
        let (body, text) = (body.into_data_stream(), String::new());
        Self { status: parts.status, headers: parts.headers, body, text, path: path.to_owned() }
    }

    /// The next event; None at the end of the stream.
    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
                let text = |name: &str| field(name).unwrap_or_default().to_owned();
                let told = field("event").map(|name| Told {
                    name: name.to_owned(),
                    id: text("id"),
                    data: serde_json::from_str(&text("data")).unwrap(),
                });
                self.text = rest.to_owned();
                match told {
                    Some(told) => {
                        contract::check_event(&self.path, &told.name, &told.data);
                        return Some(told);
                    }
                    // A comment, which keeps the connection alive.
                    None => continue,
                }
            }
            let chunk = tokio::time::timeout(PATIENCE, self.body.next()).await.expect("nothing is told")?;
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
    }

    async fn rest(mut self) -> Vec<Told> {
        let mut told = Vec::new();
        while let Some(event) = self.next().await {
            told.push(event);
        }
        told
    }
}

fn events_of(task: &Value) -> String {
    format!("/api/v2/tasks/instances/{}/events", task["id"])
}

fn log_of(task: &Value, index: usize) -> String {
    format!("/api/v2/tasks/instances/{}/subtasks/{}/log/events", task["id"], task["subtasks"][index]["id"])
}

async fn running(lab: &Lab) -> Value {
    let body = json!({"hostIds": [1], "sqlPort": 2883, "exporterPort": 2884, "version": OBPROXY});
    let made = lab.post("/api/v2/obproxy/clusters/1/obproxies/batchAdd", body).await.data();
    made["contents"][0].clone()
}

async fn write(lab: &Lab, task: &Value, attempt: u32, part: i64, text: &str) {
    let mut transaction = lab.store.begin().await.unwrap();
    let position = LogPosition { next_part: part, ..LogPosition::default() };
    let id = TaskId(task["id"].as_i64().unwrap());
    logs::append_log(&mut transaction, (id, NodeIndex(1), attempt), position, text).await.unwrap();
    transaction.commit().await.unwrap();
    lab.engine.commits.send_modify(|count| *count += 1);
}

#[tokio::test]
async fn a_task_is_told_from_its_first_event_to_its_rest() {
    let lab = Lab::furnished().await;
    let failed = lab.failed_task(failure()).await;
    let stream = Stream::open(&lab, &events_of(&failed), None).await;
    assert_eq!(stream.status, 200);
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    let mut told = stream.rest().await;
    let rest = told.pop().unwrap();
    let expected = json!({"taskId": failed["id"], "status": "FAILED"});
    assert_eq!(rest, Told { name: "rest".into(), id: "4".into(), data: expected });
    let kinds: Vec<&str> = told.iter().map(|event| event.data["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["dispatched", "succeeded", "dispatched", "failed"]);
    let last = &told[3];
    assert_eq!((last.name.as_str(), last.id.as_str()), ("task", "4"));
    assert!(last.data["time"].is_string());
    let mut data = last.data.clone();
    data.as_object_mut().unwrap().remove("time");
    let expected = json!({"taskId": failed["id"], "sequence": 4, "kind": "failed", "attempt": 1, "status": "FAILED",
        "subtaskId": failed["subtasks"][1]["id"]});
    assert_eq!(data, expected);
}

#[tokio::test]
async fn a_task_is_followed_live_and_a_decision_names_who_made_it() {
    let lab = Lab::furnished().await;
    let task = running(&lab).await;
    let mut stream = Stream::open(&lab, &events_of(&task), None).await;
    lab.begin(&task).await;
    assert_eq!(stream.next().await.unwrap().data["kind"], "dispatched");
    lab.post(&format!("/api/v2/tasks/instances/{}/cancel", task["id"]), json!({})).await.data();
    let told = stream.next().await.unwrap();
    assert_eq!((&told.data["kind"], &told.data["by"]), (&json!("task_cancel_requested"), &json!("admin")));
    let ended = Event::Failed { node: NodeIndex(0), attempt: 1, failure: failure() };
    lab.happens(&task, vec![ended]).await;
    assert_eq!(stream.next().await.unwrap().id, "3");
    let rest = stream.next().await.unwrap();
    assert_eq!((rest.name.as_str(), &rest.data["status"]), ("rest", &json!("FAILED")));
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn what_another_coordinator_writes_is_found_without_being_woken() {
    let lab = Lab::furnished().await;
    let task = running(&lab).await;
    let mut stream = Stream::open(&lab, &events_of(&task), None).await;
    lab.happens_elsewhere(&task, vec![Event::TaskCancelRequested { by: "other".into() }]).await;
    assert_eq!(stream.next().await.unwrap().data["by"], "other");
    assert_eq!(stream.next().await.unwrap().name, "rest");
}

#[tokio::test]
async fn who_comes_back_goes_on_after_the_last_event_and_is_stopped_when_there_is_none() {
    let lab = Lab::furnished().await;
    let failed = lab.failed_task(failure()).await;
    let path = events_of(&failed);
    let told = Stream::open(&lab, &path, Some("2")).await.rest().await;
    assert_eq!(told.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["3", "4", "4"]);
    let stopped = Stream::open(&lab, &path, Some("4")).await;
    assert_eq!(stopped.status, 204);
    assert_eq!(stopped.rest().await, []);
    lab.post(&format!("/api/v2/tasks/instances/{}/retry", failed["id"]), json!({})).await.data();
    let mut taken_up = Stream::open(&lab, &path, Some("4")).await;
    assert_eq!(taken_up.next().await.unwrap().data["kind"], "retry_requested");

    for garbage in ["", "x", "-1", "1.5", "99999999999999999999"] {
        assert_eq!(Stream::open(&lab, &path, Some(garbage)).await.status, 400, "{garbage:?}");
    }
    assert_eq!(Stream::open(&lab, "/api/v2/tasks/instances/999/events", None).await.status, 404);
}

#[tokio::test]
async fn a_log_is_followed_by_byte_offsets_over_all_attempts() {
    let lab = Lab::furnished().await;
    let failed = lab.failed_task(failure()).await;
    let path = log_of(&failed, 1);
    write(&lab, &failed, 1, 0, "häder\n").await;
    write(&lab, &failed, 1, 1, "one\n").await;
    let told = Stream::open(&lab, &path, None).await.rest().await;
    let log = Told { name: "log".into(), id: "11".into(), data: json!({"text": "häder\none\n"}) };
    let end = Told { name: "end".into(), id: "11".into(), data: json!({"status": "FAILED"}) };
    assert_eq!(told, [log, end]);
    assert_eq!(Stream::open(&lab, &path, Some("11")).await.status, 204);
    assert_eq!(Stream::open(&lab, &path, Some("4000")).await.status, 204, "more than there is");
    let told = Stream::open(&lab, &path, Some("7")).await.rest().await;
    assert_eq!((told[0].id.as_str(), &told[0].data["text"]), ("11", &json!("one\n")));
    let told = Stream::open(&lab, &path, Some("2")).await.rest().await;
    assert_eq!(told[0].id, "11");
    assert_eq!(told[0].data["text"], "äder\none\n", "the middle of a character is no place to begin");

    lab.post(&format!("/api/v2/tasks/instances/{}/retry", failed["id"]), json!({})).await.data();
    let mut stream = Stream::open(&lab, &path, Some("11")).await;
    let (node, attempt) = (NodeIndex(1), 2);
    write(&lab, &failed, 2, 0, "two\n").await;
    assert_eq!(stream.next().await.unwrap().data["text"], "two\n");
    lab.happens(
        &failed,
        vec![
            Event::Dispatched { node, attempt, direction: Direction::Undo },
            Event::Undone { node, attempt },
            Event::Dispatched { node, attempt, direction: Direction::Execute },
            Event::Succeeded { node, attempt, effect: Effect::None, output: Vec::new() },
        ],
    )
    .await;
    let end = stream.next().await.unwrap();
    assert_eq!((end.name.as_str(), end.id.as_str(), &end.data["status"]), ("end", "15", &json!("SUCCESSFUL")));
    assert_eq!(stream.next().await, None);
    assert_eq!(Stream::open(&lab, &path.replace("/log/", "0/log/"), None).await.status, 404);
}

#[tokio::test]
async fn a_long_log_comes_in_chunks_that_end_with_a_character() {
    let lab = Lab::furnished().await;
    let failed = lab.failed_task(failure()).await;
    let text = "ä€x".repeat(20_000);
    write(&lab, &failed, 1, 0, &text).await;
    let mut told = Stream::open(&lab, &log_of(&failed, 1), None).await.rest().await;
    assert_eq!(told.pop().unwrap().name, "end");
    assert!(told.len() > 1, "120 kB are too much for one event");
    let (mut read, mut offset) = (String::new(), 0);
    for event in &told {
        let chunk = event.data["text"].as_str().unwrap();
        read.push_str(chunk);
        offset += chunk.len();
        assert_eq!(event.id, offset.to_string());
    }
    assert!(read == text);
}

#[tokio::test]
async fn streams_are_bounded_and_end_with_the_coordinator() {
    let lab = Lab::furnished().await;
    let path = events_of(&running(&lab).await);
    let mut open = Vec::new();
    for _ in 0..256 {
        open.push(Stream::open(&lab, &path, None).await);
    }
    assert!(open.iter().all(|stream| stream.status == 200));
    let refused = Stream::open(&lab, &path, None).await;
    assert_eq!((refused.status.as_u16(), &refused.headers["retry-after"]), (503, &"5".parse().unwrap()));
    open.pop();
    let again = Stream::open(&lab, &path, None).await;
    assert_eq!(again.status, 200, "a place that was given up is given again");
    lab.shutdown.cancel();
    for stream in open {
        assert_eq!(stream.rest().await, []);
    }
}
