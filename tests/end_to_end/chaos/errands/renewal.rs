//! After a renewal the agent answers with the certificate that the coordinator takes for its own.

use super::{HOSTS, PATIENCE, Place, Site, Violation, Work, require, shown_by};
use crate::{chaos::operator::text, lab::POLL};
use std::time::Instant;

/// Long ago for all that the coordinator knows, and good for a while yet for whoever looks at the certificate.
const GROWS_OLD: &str = "UPDATE agent_certificates SET issued_at = issued_at - 3600000000 WHERE address = ?";

pub(super) async fn run(site: &Site, host: usize) -> Result<String, Violation> {
    let place = site.place(host);
    let before = current(site, &place).await?;
    site.change_store(GROWS_OLD, &place.address.to_string()).await?;
    let deadline = Instant::now() + PATIENCE;
    let mut after = before.clone();
    while after == before {
        require(Instant::now() < deadline, || format!("{} is not renewed", place.address))?;
        tokio::time::sleep(POLL).await;
        after = current(site, &place).await?;
    }
    site.end(Work::Renewal, Some(host));
    let shown = shown_by(site, &place).await?;
    require(shown == after, || format!("{} shows {shown}, and {after} is its certificate", place.address))?;
    Ok("renewed".into())
}

/// Serial of the one certificate with which the host's agent was seen last.
async fn current(site: &Site, place: &Place) -> Result<String, Violation> {
    let mut certificates = site.operator.list(&format!("{HOSTS}/certificates")).await?;
    certificates.retain(|one| one["innerIpAddress"] == place.address.to_string() && one["status"] == "CURRENT");
    match &certificates[..] {
        [one] => Ok(text(&one["serial"]).to_owned()),
        all => Err(format!("{} has {} current certificates: {all:?}", place.address, all.len())),
    }
}
