//! A proxy that serves is removed, and nothing is left of it but its logs.

use super::{Site, Violation, Work, id_of, require, succeeds};
use crate::chaos::check::{self, Installations};
use reqwest::Method;
use serde_json::json;

pub(super) async fn get_ready(site: &Site, host: usize) -> Result<(), Violation> {
    let place = site.place(host);
    let id = usize::try_from(id_of(site, &place).await?).unwrap();
    let task = site.operator.add_one(&place.batch_add_body(id), "offline").await?;
    succeeds(site, task).await
}

pub(super) async fn run(site: &Site, host: usize) -> Result<String, Violation> {
    let place = site.place(host);
    let address = place.address.to_string();
    let path = format!("/api/v2/obproxy/clusters/{}", site.operator.cluster);
    let cluster = site.operator.look(&path).await?;
    let proxies = cluster["obproxies"].as_array().into_iter().flatten();
    let ids: Vec<i64> =
        proxies.filter(|proxy| proxy["ip"] == address).filter_map(|proxy| proxy["id"].as_i64()).collect();
    require(ids.len() == 1, || format!("{address} has the proxies {ids:?}"))?;
    let body = json!({"obproxyServerIds": ids});
    let (status, answer) =
        site.operator.insist(Method::POST, &format!("{path}/servers/delete"), &body, Some("offline-now")).await?;
    require(status == 200, || format!("the removal of proxy {ids:?} is refused with {status}: {answer}"))?;
    succeeds(site, answer["data"]["id"].as_i64().unwrap_or_default()).await?;
    site.end(Work::Offline, Some(host));
    let mut violations = check::host(&place, false, Installations::Exactly(1)).await;
    violations.extend(check::coordinator(&site.operator, &place, false).await?);
    require(violations.is_empty(), || violations.join("; "))?;
    Ok("gone".into())
}
