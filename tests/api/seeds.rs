//! OCP's documented samples: what they ask for is asked, what they answer is answered, member for member.

use crate::support::Lab;
use serde_json::{Value, json};
use std::collections::HashMap;

const BATCH_ADD: &str = "/api/v2/obproxy/clusters/1/obproxies/batchAdd";

fn seed(text: &str) -> (Value, Value) {
    let mut seed: Value = serde_json::from_str(text).unwrap();
    (seed["request"].take(), seed["response"].take())
}

/// What differs from run to run gives way to its type; subtasks are named instead of numbered and sorted by name.
fn normalised(mut envelope: Value) -> Value {
    mark(&mut envelope, "timestamp", is_time);
    mark(&mut envelope, "duration", Value::is_u64);
    mark(&mut envelope, "server", Value::is_string);
    mark(&mut envelope, "traceId", |value| {
        let text = value.as_str().unwrap_or_default();
        text.len() == 16 && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
    });
    let data = &mut envelope["data"];
    match data.get_mut("contents").and_then(Value::as_array_mut) {
        Some(tasks) => tasks.iter_mut().for_each(normalise_task),
        None => normalise_task(data),
    }
    envelope
}

fn normalise_task(task: &mut Value) {
    mark(task, "id", Value::is_u64);
    mark(task, "executor", Value::is_string);
    mark(task, "startTime", is_time);
    let subtasks = task["subtasks"].as_array_mut().unwrap();
    let names: HashMap<i64, String> = subtasks
        .iter()
        .map(|subtask| (subtask["id"].as_i64().unwrap(), subtask["name"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(names.len(), subtasks.len(), "subtask ids are unique");
    for subtask in subtasks.iter_mut() {
        mark(subtask, "id", Value::is_u64);
        for edge in ["upstreams", "downstreams"] {
            for end in subtask[edge].as_array_mut().unwrap() {
                *end = json!(names[&end.as_i64().unwrap()]);
            }
        }
    }
    subtasks.sort_by_key(|subtask| subtask["name"].to_string());
}

fn mark(object: &mut Value, member: &str, fits: impl Fn(&Value) -> bool) {
    let value = object.get_mut(member).unwrap_or_else(|| panic!("{member} is missing"));
    assert!(fits(value), "{member} has an unexpected form: {value}");
    *value = json!(format!("<{member}>"));
}

fn is_time(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.len() == "2021-09-03T16:25:08.004+08:00".len() && text.parse::<jiff::Timestamp>().is_ok()
}

async fn batch_add_answers_like(text: &str) {
    let (request, expected) = seed(text);
    let lab = Lab::furnished().await;
    // The sample's host and proxy both have the id 2, so another host has its proxy already.
    let mut earlier = request.clone();
    earlier["hostIds"] = json!([1]);
    lab.post(BATCH_ADD, earlier).await.data();

    let answer = lab.post(BATCH_ADD, request).await;
    pretty_assert(normalised(answer.json()), normalised(expected));
}

fn pretty_assert(actual: Value, expected: Value) {
    let text = |value| serde_json::to_string_pretty(value).unwrap();
    assert!(actual == expected, "answered {}\nexpected {}", text(&actual), text(&expected));
}

#[tokio::test]
async fn batch_add_answers_like_the_english_sample() {
    batch_add_answers_like(include_str!("../seeds/batch_add_obproxies_en.json")).await;
}

#[tokio::test]
async fn batch_add_answers_like_the_chinese_sample() {
    batch_add_answers_like(include_str!("../seeds/batch_add_obproxies_zh.json")).await;
}

#[tokio::test]
async fn create_answers_like_the_sample() {
    let (request, expected) = seed(include_str!("../seeds/create_obproxy_cluster.json"));
    let answer = Lab::new().await.post("/api/v2/obproxy/clusters", request).await;
    pretty_assert(normalised(answer.json()), normalised(expected));
}

#[tokio::test]
async fn the_removal_of_a_proxy_answers_like_the_sample() {
    let (_, expected) = seed(include_str!("../seeds/offline_obproxy.json"));
    let lab = Lab::furnished().await;
    // The sample's proxy and its host both have the id 2.
    for host in [1, 2] {
        lab.serving_proxy(host, 2883).await;
    }
    let answer = lab.delete("/api/v2/obproxy/clusters/1/obproxies/2").await;
    pretty_assert(normalised(answer.json()), normalised(expected));
}

#[tokio::test]
async fn two_hosts_give_two_tasks() {
    let (mut request, _) = seed(include_str!("../seeds/batch_add_obproxies_en.json"));
    request["hostIds"] = json!([1, 2]);
    let lab = Lab::furnished().await;
    lab.engine.woken.lock().unwrap().clear();
    let data = lab.post(BATCH_ADD, request).await.data();
    let tasks = data["contents"].as_array().unwrap();
    assert_eq!(tasks.iter().map(|task| task["hostId"].as_i64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    let ids: Vec<i64> = tasks.iter().map(|task| task["id"].as_i64().unwrap()).collect();
    assert_eq!(*lab.engine.woken.lock().unwrap(), ids);
    let cluster = lab.get("/api/v2/obproxy/clusters/1").await.data();
    let proxies = cluster["obproxies"].as_array().unwrap();
    assert_eq!(proxies.len(), 2);
    assert!(proxies.iter().all(|proxy| proxy["status"] == "CREATING" && proxy["operateStatus"] == "OPERATING"));
    assert_eq!(cluster["versions"], json!([{"version": "1.9.1.1-1919579", "count": 2}]));
}
