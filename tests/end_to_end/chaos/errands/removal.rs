//! A host is removed when no task reserves it any more. What it had is worth nothing then, and nothing of it stands in the
//! way when it is enrolled again and comes back.

use super::{HOSTS, Site, Violation, admit, create, enrolment, id_of, ids_of, remove, require, roll_back, tell};
use reqwest::Method;
use serde_json::json;
use std::fs;

pub(super) async fn run(site: &Site, host: usize, revoked: bool) -> Result<String, Violation> {
    let place = site.place(host);
    let task = create(site, &place, "guest").await?;
    let id = id_of(site, &place).await?;
    remove(site, id).await?;
    let task = site.operator.task(task).await?;
    require(task["status"] == "SUCCESSFUL", || format!("host {id} was removed under its task: {}", tell(&task)))?;
    let left = ids_of(site, &place).await?;
    require(left.is_empty(), || format!("host {id} was removed and is known as {left:?}"))?;
    if revoked {
        let body = json!({"innerIpAddress": place.address.to_string()});
        let (status, answer) = site.operator.insist(Method::POST, &format!("{HOSTS}/revoke"), &body, None).await?;
        require(status == 200, || format!("{} is not revoked: {status}: {answer}", place.address))?;
    }
    let task = create(site, &place, "back").await?;
    let failed = site.operator.rest_of(task).await?;
    let failure = &failed["subtasks"][0]["failure"]["reason"];
    let refused = failed["status"] == "FAILED" && failed.to_string().contains("HOST_NOT_TRUSTED");
    require(refused, || format!("the agent of a removed host was spoken to ({failure}): {}", tell(&failed)))?;
    roll_back(site, task).await?;
    let left = ids_of(site, &place).await?;
    require(left.is_empty(), || format!("its rollback leaves {} as {left:?}", place.address))?;
    {
        let mut lab = site.lab();
        fs::remove_dir_all(place.directory.join("tls")).unwrap();
        lab.hosts[host].agent = None;
    }
    enrolment::bring_in(site, host, false).await?;
    admit(site, host, "enrolled").await?;
    let again = id_of(site, &place).await?;
    require(again != id, || format!("another host has the id {id} of one that was removed"))?;
    Ok("removed, not trusted, and enrolled again".into())
}
