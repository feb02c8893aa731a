//! A host is removed when no task reserves it any more, and nothing of it stands in the way when it comes back.

use super::{HOSTS, Site, Violation, create, id_of, ids_of, remove, require, roll_back, succeeds, tell};
use reqwest::Method;
use serde_json::json;

pub(super) async fn run(site: &Site, host: usize, revoked: bool) -> Result<String, Violation> {
    let place = site.place(host);
    let task = create(site, &place, "guest").await?;
    let id = id_of(site, &place).await?;
    remove(site, id).await?;
    let task = site.operator.task(task).await?;
    require(task["status"] == "SUCCESSFUL", || format!("host {id} was removed under its task: {}", tell(&task)))?;
    let left = ids_of(site, &place).await?;
    require(left.is_empty(), || format!("host {id} was removed and is known as {left:?}"))?;
    if !revoked {
        let task = create(site, &place, "back").await?;
        succeeds(site, task).await?;
        let again = id_of(site, &place).await?;
        require(again != id, || format!("another host has the id {id} of one that was removed"))?;
        return Ok("removed and taken back".into());
    }
    let body = json!({"innerIpAddress": place.address.to_string()});
    let (status, answer) = site.operator.insist(Method::POST, &format!("{HOSTS}/revoke"), &body, None).await?;
    require(status == 200, || format!("{} is not revoked: {status}: {answer}", place.address))?;
    let task = create(site, &place, "back").await?;
    let failed = site.operator.rest_of(task).await?;
    let failure = &failed["subtasks"][0]["failure"]["reason"];
    let refused = failed["status"] == "FAILED" && failed.to_string().contains("HOST_NOT_TRUSTED");
    require(refused, || format!("a revoked agent was spoken to ({failure}): {}", tell(&failed)))?;
    roll_back(site, task).await?;
    let left = ids_of(site, &place).await?;
    require(left.is_empty(), || format!("its rollback leaves {} as {left:?}", place.address))?;
    Ok("removed and not trusted".into())
}
