//! A proxy is installed while the agent's disk runs full, stays full for a while, and has room again.

use super::{Site, Violation, Work, id_of, require, tell};
use crate::chaos::check::{self, Installations};
use std::time::Duration;

/// Decisions that may be needed: one for the step that was hit, and one for each blow at its agent while it was full.
const MOST_RETRIES: usize = 3;

pub(super) async fn run(
    site: &Site,
    host: usize,
    full_after: Duration,
    full_for: Duration,
) -> Result<String, Violation> {
    let place = site.place(host);
    let id = usize::try_from(id_of(site, &place).await?).unwrap();
    let batch = place.batch_add_body(id);
    let Some(disk) = site.disk(host) else { return Ok("no small disk here".into()) };
    let fill = async {
        tokio::time::sleep(full_after).await;
        disk.fill();
        tokio::time::sleep(full_for).await;
        disk.make_room();
        // An agent that was started on a full disk may have ended; its service would be started again.
        site.serve(host).await
    };
    let (added, served) = tokio::join!(site.operator.add_one(&batch, "disk"), fill);
    served?;
    let task = added?;
    let mut retries = 0;
    loop {
        let task = site.operator.rest_of(task).await?;
        if task["status"] == "SUCCESSFUL" {
            break;
        }
        require(retries < MOST_RETRIES, || format!("{retries} retries are not enough: {}", tell(&task)))?;
        retries += 1;
        site.operator.decide(task["id"].as_i64().unwrap(), "retry").await?;
    }
    site.end(Work::Disk, Some(host));
    let mut violations = check::host(&place, true, Installations::AtMost(1 + retries)).await;
    violations.extend(check::coordinator(&site.operator, &place, true).await?);
    require(violations.is_empty(), || violations.join("; "))?;
    Ok(format!("{retries} retries"))
}
