//! A task that nobody takes up again gives free what it reserved, and takes it back only from nobody.
//!
//! Agents of this lab are no services, so a task that would stop one fails and keeps its host reserved.

use super::{HOSTS, Site, Violation, id_of, remove, require, roll_back, tell};
use crate::chaos::operator::text;
use reqwest::Method;
use serde_json::{Value, json};

pub(super) async fn run(site: &Site, host: usize) -> Result<String, Violation> {
    let place = site.place(host);
    let id = id_of(site, &place).await?;
    let abandoned = stuck(site, id, "abandoned").await?;
    let (status, answer) = ask_to_stop(site, id, "other").await?;
    let named = status == 409 && text(&answer["error"]["message"]).contains(&format!("by task {abandoned},"));
    require(named, || format!("host {id} is reserved by task {abandoned}, and a request gets {status}: {answer}"))?;
    // 409: the answer to an earlier request got lost.
    let (status, answer) = order(site, abandoned, "releaseLocks").await?;
    require([200, 409].contains(&status), || format!("task {abandoned} lets go of nothing: {status}: {answer}"))?;

    let other = stuck(site, id, "other").await?;
    for decision in ["retry", "rollback"] {
        let (status, answer) = order(site, abandoned, decision).await?;
        let named = status == 409 && text(&answer["error"]["message"]).contains(&format!("by task {other},"));
        require(named, || format!("{decision} of task {abandoned} without its host gets {status}: {answer}"))?;
    }
    roll_back(site, other).await?;
    roll_back(site, abandoned).await?;
    remove(site, id).await?;
    Ok("released and retaken".into())
}

async fn order(site: &Site, task: i64, verb: &str) -> Result<(u16, Value), Violation> {
    let path = format!("/api/v2/tasks/instances/{task}/{verb}");
    site.operator.insist(Method::POST, &path, &Value::Null, None).await
}

async fn ask_to_stop(site: &Site, host: i64, key: &str) -> Result<(u16, Value), Violation> {
    let key = format!("stop-{host}-{key}");
    site.operator
        .insist(Method::POST, &format!("{HOSTS}/batchStopAgents"), &json!({"hostIds": [host]}), Some(&key))
        .await
}

/// A task that failed and has the host; answers its id.
async fn stuck(site: &Site, host: i64, key: &str) -> Result<i64, Violation> {
    let (status, answer) = ask_to_stop(site, host, key).await?;
    let id = answer["data"]["id"].as_i64().or_else(|| answer["data"]["contents"][0]["id"].as_i64());
    let Some(id) = id.filter(|_| status == 200) else {
        return Err(format!("host {host} cannot be reserved: {status}: {answer}"));
    };
    let task = site.operator.rest_of(id).await?;
    let expected = task["status"] == "FAILED" && task.to_string().contains("NOT_UNDER_A_SERVICE_MANAGER");
    require(expected, || format!("no service was stopped: {}", tell(&task)))?;
    Ok(id)
}
