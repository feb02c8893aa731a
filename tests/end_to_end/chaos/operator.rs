//! What an operator does, over REST alone: asks, looks, asks again when the answer got lost.

use crate::{
    lab::{PATIENCE, batch_add_path},
    rest::Rest,
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// Something that must not happen, in words.
pub(crate) type Violation = String;

const POLL: Duration = Duration::from_millis(25);

pub(crate) struct Operator {
    pub(crate) rest: Rest,
    pub(crate) cluster: i64,
    /// A request for each host.
    pub(crate) batches: Vec<Value>,
}

impl Operator {
    /// Adds the proxies; answers the ids of the tasks, one for each host.
    pub(crate) async fn batch_add(&self, key: &str) -> Result<Vec<i64>, Violation> {
        let mut made = Vec::new();
        for (number, batch) in self.batches.iter().enumerate() {
            made.push(self.add_one(batch, &format!("{key}-{number}")).await?);
        }
        Ok(made)
    }

    /// A request whose answer got lost is sent again with the same key.
    async fn add_one(&self, batch: &Value, key: &str) -> Result<i64, Violation> {
        let before = self.ids().await?;
        let deadline = Instant::now() + PATIENCE;
        let answered = loop {
            let said = match self.post_once(&batch_add_path(self.cluster), batch, key).await {
                Ok((200, answer)) => break ids(&answer["data"]["contents"]),
                Ok((status, answer)) => format!("{status}: {answer}"),
                Err(error) => error.to_string(),
            };
            if Instant::now() > deadline {
                return Err(format!("batchAdd did not succeed in time: {said}"));
            }
            tokio::time::sleep(POLL).await;
        };
        let made: Vec<i64> = self.ids().await?.difference(&before).copied().collect();
        match made[..] {
            [id] if made == answered => Ok(id),
            _ => Err(format!("batchAdd for a host answers {answered:?} and made {made:?}")),
        }
    }

    async fn post_once(&self, path: &str, body: &Value, key: &str) -> Result<(u16, Value), reqwest::Error> {
        let request = self.rest.request(reqwest::Method::POST, path).header("Idempotency-Key", key);
        let response = request.json(body).send().await?;
        Ok((response.status().as_u16(), response.json().await?))
    }

    async fn ids(&self) -> Result<BTreeSet<i64>, Violation> {
        let list = self.look("/api/v2/tasks/instances?size=100").await?;
        Ok(ids(&list["contents"]).into_iter().collect())
    }

    /// The data of an answer, as soon as there is one.
    pub(crate) async fn look(&self, path: &str) -> Result<Value, Violation> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.rest.get(path).await {
                Ok(answer) if !answer["data"].is_null() => return Ok(answer["data"].clone()),
                Ok(answer) if Instant::now() > deadline => return Err(format!("{path} answers {answer}")),
                Err(error) if Instant::now() > deadline => return Err(format!("{path} does not answer: {error}")),
                Ok(_) | Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    pub(crate) async fn task(&self, id: i64) -> Result<Value, Violation> {
        self.look(&format!("/api/v2/tasks/instances/{id}")).await
    }

    /// Waits until the task came to rest.
    pub(crate) async fn rest_of(&self, id: i64) -> Result<Value, Violation> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let task = self.task(id).await?;
            if task["status"] != "RUNNING" {
                return Ok(task);
            }
            if Instant::now() > deadline {
                return Err(format!("task {id} does not come to rest: {}", tell(&task)));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// `retry` or `rollback` of a failed task, asked for until it is known to be taken.
    pub(crate) async fn decide(&self, id: i64, decision: &str) -> Result<(), Violation> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = match self.rest.post(&format!("/api/v2/tasks/instances/{id}/{decision}"), &Value::Null).await {
                Ok((200, _)) => return Ok(()),
                Ok((status, answer)) => format!("{status}: {answer}"),
                Err(error) => error.to_string(),
            };
            let task = self.task(id).await?;
            // The answer to an earlier request got lost.
            if task["operation"].as_str().is_some_and(|operation| operation.eq_ignore_ascii_case(decision)) {
                return Ok(());
            }
            if Instant::now() > deadline || task["status"] != "FAILED" {
                return Err(format!("{decision} of task {id} was not taken ({said}): {}", tell(&task)));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Cancels the task as a whole; 409 means that it has just ended, or that an earlier request was taken.
    pub(crate) async fn cancel(&self, id: i64) -> Result<(), Violation> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = match self.rest.post(&format!("/api/v2/tasks/instances/{id}/cancel"), &Value::Null).await {
                Ok((200 | 409, _)) => return Ok(()),
                Ok((status, answer)) => format!("{status}: {answer}"),
                Err(error) => error.to_string(),
            };
            if Instant::now() > deadline {
                return Err(format!("the cancellation of task {id} was not taken: {said}"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Cancels whatever runs of the task at this moment; a refusal means that it has just ended.
    pub(crate) async fn cancel_subtasks(&self, id: i64) -> Result<(), Violation> {
        let task = self.task(id).await?;
        for subtask in task["subtasks"].as_array().into_iter().flatten() {
            if subtask["status"] == "RUNNING" {
                let path = format!("/api/v2/tasks/instances/{id}/subtasks/{}/cancel", subtask["id"]);
                // A lost answer needs no second request: whatever became of it, the task comes to rest.
                let _ = self.rest.post(&path, &Value::Null).await;
            }
        }
        Ok(())
    }
}

fn ids(list: &Value) -> Vec<i64> {
    list.as_array().into_iter().flatten().filter_map(|item| item["id"].as_i64()).collect()
}

/// A task in a line: its state, and what is not simply done or waiting for its turn.
pub(crate) fn tell(task: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let active = |subtask: &&Value| ["RUNNING", "FAILED", "CANCELING"].contains(&text(&subtask["status"]).as_str());
    let subtasks = task["subtasks"].as_array().into_iter().flatten().filter(active).map(|subtask| {
        let failure = &subtask["failure"]["message"];
        format!("; {} {} {failure}", text(&subtask["name"]), text(&subtask["status"]))
    });
    format!("{} {} {}{}", task["id"], text(&task["operation"]), text(&task["status"]), subtasks.collect::<String>())
}
