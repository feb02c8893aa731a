//! What an operator does, over REST alone: asks, looks, asks again when the answer got lost.

use crate::{
    lab::{PATIENCE, POLL, batch_add_path},
    rest::Rest,
};
use reqwest::Method;
use serde_json::Value;
use std::{collections::BTreeSet, time::Instant};

/// Something that must not happen, in words.
pub(crate) type Violation = String;

/// As what the API calls the task of a batchAdd.
pub(crate) const INSTALLATION: &str = "Install obproxy";

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

    /// One request; answers the id of its one task.
    pub(crate) async fn add_one(&self, batch: &Value, key: &str) -> Result<i64, Violation> {
        let before = self.installations(&batch["hostIds"][0]).await?;
        let answered = self.made(&batch_add_path(self.cluster), batch, key).await?;
        let after = self.installations(&batch["hostIds"][0]).await?;
        let made: Vec<i64> = after.difference(&before).copied().collect();
        match made[..] {
            [id] if made == answered => Ok(id),
            _ => Err(format!("batchAdd for a host answers {answered:?} and made {made:?}")),
        }
    }

    /// The requests of [`Self::batch_add`] once more: they are answered with the same tasks, and make none.
    pub(crate) async fn add_again(&self, key: &str, ids: &[i64]) -> Result<(), Violation> {
        for (number, (batch, id)) in self.batches.iter().zip(ids).enumerate() {
            let before = self.installations(&batch["hostIds"][0]).await?;
            let answered = self.made(&batch_add_path(self.cluster), batch, &format!("{key}-{number}")).await?;
            let after = self.installations(&batch["hostIds"][0]).await?;
            if answered != [*id] || before != after {
                return Err(format!(
                    "sent again, the request of task {id} answers {answered:?}: {before:?}, {after:?}"
                ));
            }
        }
        Ok(())
    }

    /// Sends a request that makes tasks until it is answered, which must be with their ids.
    pub(crate) async fn made(&self, path: &str, body: &Value, key: &str) -> Result<Vec<i64>, Violation> {
        match self.insist(Method::POST, path, body, Some(key)).await? {
            (200, answer) => Ok(ids(&answer["data"]["contents"])),
            (status, answer) => Err(format!("{path} is refused with {status}: {answer}")),
        }
    }

    /// Sends a request, with the same key if it has one, until there is an answer that says what became of it.
    pub(crate) async fn insist(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        key: Option<&str>,
    ) -> Result<(u16, Value), Violation> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = match self.send(method.clone(), path, body, key).await {
                Ok((status, answer)) if status < 500 => return Ok((status, answer)),
                Ok((status, answer)) => format!("{status}: {answer}"),
                Err(error) => error.to_string(),
            };
            if Instant::now() > deadline {
                return Err(format!("{method} {path} is not answered: {said}"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends a request once.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        key: Option<&str>,
    ) -> Result<(u16, Value), reqwest::Error> {
        let mut request = self.rest.request(method, path);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let response = request.json(body).send().await?;
        let status = response.status().as_u16();
        // Some answers have no body.
        let text = response.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or_default()))
    }

    /// The rows of all tasks.
    pub(crate) async fn tasks(&self) -> Result<Vec<Value>, Violation> {
        self.list("/api/v2/tasks/instances").await
    }

    /// The first hundred of a list.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<Value>, Violation> {
        let list = self.look(&format!("{path}?size=100")).await?;
        list["contents"].as_array().cloned().ok_or_else(|| format!("{path} is no list: {list}"))
    }

    /// Tasks that put a proxy on the host.
    async fn installations(&self, host: &Value) -> Result<BTreeSet<i64>, Violation> {
        let tasks = self.tasks().await?;
        let fits = |task: &&Value| task["name"] == INSTALLATION && task["hostId"] == *host;
        Ok(tasks.iter().filter(fits).filter_map(|task| task["id"].as_i64()).collect())
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
        let path = format!("/api/v2/tasks/instances/{id}/cancel");
        match self.insist(Method::POST, &path, &Value::Null, None).await? {
            (200 | 409, _) => Ok(()),
            (status, answer) => Err(format!("the cancellation of task {id} was not taken: {status}: {answer}")),
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

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(crate) fn require(fits: bool, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if fits { Ok(()) } else { Err(what()) }
}

/// A task in a line: its state, and what is not simply done or waiting for its turn.
pub(crate) fn tell(task: &Value) -> String {
    let active = |subtask: &&Value| ["RUNNING", "FAILED", "CANCELING"].contains(&text(&subtask["status"]));
    let subtasks = task["subtasks"].as_array().into_iter().flatten().filter(active).map(|subtask| {
        let failure = &subtask["failure"]["message"];
        format!("; {} {} {failure}", text(&subtask["name"]), text(&subtask["status"]))
    });
    format!("{} {} {}{}", task["id"], text(&task["operation"]), text(&task["status"]), subtasks.collect::<String>())
}
