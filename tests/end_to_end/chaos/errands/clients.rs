//! Clients that leave before they are answered, that ask twice at once, and that ask again: one task comes of it.

use super::{HOSTS, PREPARATION, Site, Violation, creation, id_of, require, succeeds};
use reqwest::Method;
use serde_json::Value;
use std::time::Duration;

const LEAVE: usize = 4;
const KEY: &str = "impatient";

pub(super) async fn run(site: &Site, host: usize, patience: Duration) -> Result<String, Violation> {
    let place = site.place(host);
    let operator = &site.operator;
    let path = format!("{HOSTS}/batchCreate");
    let body = creation(&place);
    let mut answered = 0;
    for _ in 0..LEAVE {
        let asked = operator.send(Method::POST, &path, &body, Some(KEY));
        answered += usize::from(tokio::time::timeout(patience, asked).await.is_ok());
    }
    let (one, other) = tokio::join!(operator.made(&path, &body, KEY), operator.made(&path, &body, KEY));
    let (one, other) = (one?, other?);
    require(one == other && one.len() == 1, || format!("asked twice at once, {one:?} and {other:?} were made"))?;
    let mut different = body.clone();
    different["alias"] = "another".into();
    let (status, answer) = operator.insist(Method::POST, &path, &different, Some(KEY)).await?;
    require(status == 409, || format!("another request with the same key gets {status}: {answer}"))?;
    succeeds(site, one[0]).await?;
    let again = operator.made(&path, &body, KEY).await?;
    require(again == one, || format!("asked again, task {again:?} is named and not {one:?}"))?;
    let id = id_of(site, &place).await?;
    let tasks = operator.tasks().await?;
    let ours = |task: &&Value| task["name"] == PREPARATION && task["hostId"] == id;
    let made = tasks.iter().filter(ours).count();
    require(made == 1, || format!("{made} tasks prepare host {id}"))?;
    Ok(format!("{} of {LEAVE} left", LEAVE - answered))
}
