//! What goes on beside the proxies. Each errand looks after its own promises, when it has come to its end.

mod clients;
mod disk;
mod enrolment;
mod locks;
mod offline;
mod removal;
mod renewal;
mod streams;

use super::{
    operator::{Violation, require, tell},
    plan::{Drawn, Errand, Work},
    site::Site,
};
use crate::{
    lab::{PATIENCE, POLL, Place},
    tokens::{call, shown},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Instant;

const HOSTS: &str = "/api/v2/compute/hosts";
const PREPARATION: &str = "Prepare host";

/// What has to be there before the blows begin.
pub(super) async fn get_ready(site: &Site, drawn: &Drawn) -> Result<(), Violation> {
    let Some(host) = drawn.host else { return Ok(()) };
    match drawn.errand {
        Errand::Renewal => {
            enrolment::bring_in(site, host, false).await?;
            admit(site, host, "early").await
        }
        Errand::Removal { .. } => enrolment::bring_in(site, host, false).await.map(drop),
        Errand::Locks | Errand::Disk { .. } => admit(site, host, "early").await,
        Errand::Offline => {
            admit(site, host, "early").await?;
            offline::get_ready(site, host).await
        }
        Errand::Enrolment { .. } | Errand::Clients { .. } | Errand::Streams => Ok(()),
    }
}

/// Waits for its stage, and answers in words how it ended.
pub(super) async fn run(site: &Site, drawn: &Drawn) -> Result<String, Violation> {
    let work = drawn.errand.work();
    site.wait_for_stage(drawn.stage).await;
    site.begin(work, drawn.host);
    let told = match (drawn.errand, drawn.host) {
        (Errand::Enrolment { rival }, Some(host)) => enrolment::run(site, host, rival).await,
        (Errand::Renewal, Some(host)) => renewal::run(site, host).await,
        (Errand::Removal { revoked }, Some(host)) => removal::run(site, host, revoked).await,
        (Errand::Locks, Some(host)) => locks::run(site, host).await,
        (Errand::Disk { full_after, full_for }, Some(host)) => disk::run(site, host, full_after, full_for).await,
        (Errand::Clients { patience }, Some(host)) => clients::run(site, host, patience).await,
        (Errand::Offline, Some(host)) => offline::run(site, host).await,
        (Errand::Streams, _) | (_, None) => streams::run(site).await,
    };
    told.map(|told| format!("{work}: {told}")).map_err(|violation| format!("{work}: {violation}"))
}

fn creation(place: &Place) -> Value {
    json!({"hostBasicDataList": [{"innerIpAddress": place.address.to_string()}]})
}

/// Asks for the host to be added; answers the task.
async fn create(site: &Site, place: &Place, key: &str) -> Result<i64, Violation> {
    let key = format!("{}-{key}", place.address);
    let made = site.operator.made(&format!("{HOSTS}/batchCreate"), &creation(place), &key).await?;
    match made[..] {
        [id] => Ok(id),
        _ => Err(format!("the request to add {} made the tasks {made:?}", place.address)),
    }
}

/// Adds the host, which has to succeed.
async fn admit(site: &Site, host: usize, key: &str) -> Result<(), Violation> {
    let place = site.place(host);
    let task = create(site, &place, key).await?;
    succeeds(site, task).await?;
    id_of(site, &place).await.map(drop)
}

async fn succeeds(site: &Site, task: i64) -> Result<(), Violation> {
    let task = site.operator.rest_of(task).await?;
    require(task["status"] == "SUCCESSFUL", || format!("failed without a reason: {}", tell(&task)))
}

/// The ids under which hosts with this address are known.
async fn ids_of(site: &Site, place: &Place) -> Result<Vec<i64>, Violation> {
    let address = place.address.to_string();
    let hosts = site.operator.list(HOSTS).await?;
    Ok(hosts.iter().filter(|host| host["innerIpAddress"] == address).filter_map(|host| host["id"].as_i64()).collect())
}

/// The id of a host that must be known, and once.
async fn id_of(site: &Site, place: &Place) -> Result<i64, Violation> {
    match ids_of(site, place).await?[..] {
        [id] => Ok(id),
        ref ids => Err(format!("{} is known {} times, as {ids:?}", place.address, ids.len())),
    }
}

/// The serial number of the certificate that the agent shows, as soon as it answers.
async fn shown_by(site: &Site, place: &Place) -> Result<String, Violation> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call(&site.caller, place.address).await {
            Ok(stream) => return Ok(shown(&stream)),
            Err(_) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
            Err(error) => return Err(format!("{} does not answer: {error}", place.address)),
        }
    }
}

/// Rolls a failed task back, which has to succeed.
async fn roll_back(site: &Site, task: i64) -> Result<(), Violation> {
    site.operator.decide(task, "rollback").await?;
    let task = site.operator.rest_of(task).await?;
    let rolled_back = task["status"] == "SUCCESSFUL" && task["operation"] == "ROLLBACK";
    require(rolled_back, || format!("was not rolled back: {}", tell(&task)))
}

/// Deletes the host, however long a task reserves it.
async fn remove(site: &Site, id: i64) -> Result<(), Violation> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match site.operator.insist(Method::DELETE, &format!("{HOSTS}/{id}"), &Value::Null, None).await? {
            // 404: the answer to an earlier request got lost.
            (200 | 404, _) => return Ok(()),
            (409, _) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
            (status, answer) => return Err(format!("host {id} is not removed: {status}: {answer}")),
        }
    }
}
