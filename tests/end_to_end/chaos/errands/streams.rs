//! Clients that open streams and never read them hold up nobody, and whoever reads is told everything in order.

use super::{PATIENCE, POLL, Site, Violation, Work, require};
use crate::chaos::operator::{INSTALLATION, text};
use reqwest::{Method, Response};
use serde_json::Value;
use std::time::Instant;

/// Of each task; a coordinator serves 256.
const DEAF: usize = 20;

pub(super) async fn run(site: &Site) -> Result<String, Violation> {
    let tasks = tasks(site).await?;
    let mut deaf = Vec::new();
    for task in &tasks {
        for number in 0..DEAF {
            let subtask = task["subtasks"].as_array().and_then(|all| all.get(number % all.len().max(1)));
            let path = match subtask.filter(|_| number % 2 == 0) {
                Some(subtask) => format!("{}/subtasks/{}/log/events", path(task), subtask["id"]),
                None => format!("{}/events", path(task)),
            };
            deaf.push(open(site, &path).await?);
        }
    }
    for task in &tasks {
        site.operator.rest_of(task["id"].as_i64().unwrap_or_default()).await?;
    }
    site.end(Work::Streams, None);
    let count = deaf.len();
    drop(deaf);
    for task in &tasks {
        check_events(site, task).await?;
    }
    Ok(format!("{count} never read"))
}

/// Those of the proxies, as soon as there are any.
async fn tasks(site: &Site) -> Result<Vec<Value>, Violation> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut tasks = site.operator.tasks().await?;
        tasks.retain(|task| task["name"] == INSTALLATION);
        if !tasks.is_empty() {
            return Ok(tasks);
        }
        require(Instant::now() < deadline, || "there is no task of a proxy".into())?;
        tokio::time::sleep(POLL).await;
    }
}

fn path(task: &Value) -> String {
    format!("/api/v2/tasks/instances/{}", task["id"])
}

/// A stream of which nobody reads more than the head of the answer. The coordinator may be down at the moment.
async fn open(site: &Site, path: &str) -> Result<Response, Violation> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = site.operator.rest.request(Method::GET, path).send().await;
        if let Some(answer) = answer.ok().filter(|answer| answer.status() == 200) {
            return Ok(answer);
        }
        require(Instant::now() < deadline, || format!("{path} cannot be opened"))?;
        tokio::time::sleep(POLL).await;
    }
}

/// Read from its begin, the stream of a task that rests tells each event once, and then that it rests.
async fn check_events(site: &Site, task: &Value) -> Result<(), Violation> {
    let deadline = Instant::now() + PATIENCE;
    let told = loop {
        let answer = open(site, &format!("{}/events", path(task))).await?;
        // The coordinator may die over its answer.
        if let Ok(told) = answer.text().await {
            break told;
        }
        require(Instant::now() < deadline, || format!("the events of task {} cannot be read", task["id"]))?;
        tokio::time::sleep(POLL).await;
    };
    let values = |name: &str| {
        let values = told.lines().filter_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
        values.collect::<Vec<String>>()
    };
    let kinds = values("event:");
    let ids: Vec<i64> = values("id:").iter().filter_map(|id| id.parse().ok()).collect();
    let rests = kinds.last().is_some_and(|kind| kind == "rest");
    // The rest is told under the number of the last event.
    let events = i64::try_from(kinds.len()).unwrap_or_default() - 1;
    let each_once = ids.iter().copied().eq((1..=events).chain([events]));
    require(rests && each_once && events > 0, || {
        format!("the stream of task {} {} tells {kinds:?} {ids:?}", task["id"], text(&task["name"]))
    })
}
