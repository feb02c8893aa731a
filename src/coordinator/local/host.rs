//! The coordinator's part of preparing a host.

use super::{
    Adapter, Done, LocalError,
    error::Stopped,
    skew::Skew,
    work::{Answer, Work},
};
use crate::{
    coordinator::store::{
        StoreError,
        host::{self, Host, HostStatus},
        obproxy,
    },
    steps::{PrepareHost, UnreserveHosts, UpdateHostStatus},
};
use futures_util::future::BoxFuture;
use sqlx::AnyConnection;
use std::time::Duration;
use tokio::time::Instant;

/// A host that was just named is more likely misnamed than away for long.
const FIRST_CONTACT: Duration = Duration::from_secs(30);
/// Certificates, leases and the order of logs bear that much.
const MAX_SKEW_MILLISECONDS: i64 = 1000;
const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Programs of one major version understand each other, whichever is the older.
fn understands(agent_version: &str) -> bool {
    let major = |version: &str| version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    major(agent_version).is_some_and(|agent| Some(agent) == major(OWN_VERSION))
}

impl Adapter for PrepareHost {
    fn execute<'a>(&'a self, work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(prepare(self, work))
    }

    fn undo<'a>(&'a self, work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(forget(self.host_id, work))
    }
}

/// Asks the agent what its host is, and writes that down if the coordinator can work with it.
async fn prepare(step: &PrepareHost, work: &mut Work<'_>) -> Done {
    let host = work.host(step.host_id).await?;
    let patience = work.deadline.min(Instant::now() + FIRST_CONTACT);
    let Answer { facts, asked_at, answered_at } = work.describe(&host, patience).await?;
    let ip = host.inner_ip;
    if !understands(&facts.agent_version) {
        return Err(LocalError::AgentVersion { host: ip, agent: facts.agent_version, own: OWN_VERSION }.into());
    }
    let time = facts.time.ok_or(LocalError::NoClock { host: ip })?;
    let time = time.seconds.saturating_mul(1_000_000).saturating_add(i64::from(time.nanos) / 1000);
    let skew = Skew::between(asked_at, time, answered_at);
    if skew.milliseconds().abs() > MAX_SKEW_MILLISECONDS {
        return Err(LocalError::Clock { host: ip, skew, limit: MAX_SKEW_MILLISECONDS }.into());
    }
    let line = format!(
        "host {ip} ({}): {}, {}, agent {}, clock {skew}",
        facts.hostname, facts.operating_system, facts.architecture, facts.agent_version
    );
    let port = u16::try_from(facts.metrics_port).ok().filter(|port| step.asks_metrics_port && *port > 0);
    if !work.keep(&host, facts, port).await? {
        return Err(LocalError::Gone { what: "host", id: host.id }.into());
    }
    work.line(&line).await
}

/// Takes back what the request wrote. The host keeps its certificate, so that it can be added again when what was in the
/// way is mended.
async fn forget(id: i64, work: &mut Work<'_>) -> Done {
    match work.change(move |rows| Box::pin(delete(rows, id))).await? {
        None => Ok(()),
        Some((host, Some(proxy))) => Err(LocalError::InUse { host: host.inner_ip, proxy }.into()),
        Some((host, None)) => work.line(&format!("host {} ({}) is not known any more", host.id, host.inner_ip)).await,
    }
}

/// Answers the host, if there was one, and a proxy on it, for the sake of which it stays.
async fn delete(rows: &mut AnyConnection, id: i64) -> Result<Option<(Host, Option<i64>)>, StoreError> {
    let Some(host) = host::get(rows, id).await? else { return Ok(None) };
    let proxy = obproxy::proxies_on(rows, &[id]).await?.first().map(|proxy| proxy.id);
    if proxy.is_none() {
        host::delete(rows, id).await?;
    }
    Ok(Some((host, proxy)))
}

impl Adapter for UpdateHostStatus {
    fn execute<'a>(&'a self, work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(async {
            match set_status(self.host_id, HostStatus::New, HostStatus::Available, work).await? {
                true => Ok(()),
                false => Err(LocalError::Gone { what: "host", id: self.host_id }.into()),
            }
        })
    }

    fn undo<'a>(&'a self, work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(async { set_status(self.host_id, HostStatus::Available, HostStatus::New, work).await.map(|_| ()) })
    }
}

impl Adapter for UnreserveHosts {
    fn execute<'a>(&'a self, work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(async {
            let ids = self.host_ids.clone();
            work.change(move |rows| Box::pin(follow(rows, ids.clone()))).await?;
            work.line("the hosts are free for other tasks as soon as this one is SUCCESSFUL").await
        })
    }
}

async fn follow(rows: &mut AnyConnection, hosts: Vec<i64>) -> Result<(), StoreError> {
    host::follow_proxies(rows, &hosts).await
}

/// Leads the host from one status to another; answers whether there is such a host. One that has left the first already
/// is left as it is.
async fn set_status(id: i64, from: HostStatus, to: HostStatus, work: &mut Work<'_>) -> Result<bool, Stopped> {
    match work.change(move |rows| Box::pin(lead(rows, id, from, to))).await? {
        Some(host) => {
            work.line(&format!("host {} is {}", host.inner_ip, host.status)).await?;
            Ok(true)
        }
        None => Ok(false),
    }
}

async fn lead(rows: &mut AnyConnection, id: i64, from: HostStatus, to: HostStatus) -> Result<Option<Host>, StoreError> {
    match host::get(rows, id).await? {
        Some(host) if host.status == from => host::set_status(rows, id, to).await,
        host => Ok(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_of_another_major_version_are_not_understood() {
        let own_major = OWN_VERSION.split('.').next().unwrap();
        assert!(understands(OWN_VERSION) && understands(&format!("{own_major}.999.0-rc1")));
        for other in ["999.0.0", "", "next"] {
            assert!(!understands(other), "{other}");
        }
    }
}
