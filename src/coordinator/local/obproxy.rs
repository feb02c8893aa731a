//! The coordinator's part of adding and removing proxies.

use super::{Adapter, Done, LocalError, error::Stopped, work::Work};
use crate::{
    coordinator::store::{
        StoreError, host, now_micros,
        obproxy::{self, Obproxy, ObproxyStatus},
    },
    steps::{
        DeleteObproxyInfo, FinishClusterOffline, KnownObproxy, PrepareObproxyInstall, PrepareObproxyOffline,
        UpdateObproxyStatus,
    },
};
use futures_util::future::BoxFuture;
use sqlx::AnyConnection;

impl Adapter for PrepareObproxyInstall {
    fn execute<'a>(&'a self, work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(prepare(self, work))
    }

    fn undo<'a>(&'a self, work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(forget(self, work))
    }
}

/// Everything that can be found out before the host is touched: rows, the package, the agent, the architecture.
async fn prepare(step: &PrepareObproxyInstall, work: &mut Work<'_>) -> Done {
    let gone = |what, id| LocalError::Gone { what, id };
    let cluster = work.rows().clusters.get(step.cluster_id).await?;
    let cluster = cluster.ok_or_else(|| gone("proxy cluster", step.cluster_id))?;
    let Some(reference) = &step.proxy else {
        return work.line(&format!("proxy cluster {} is registered", cluster.name)).await;
    };
    let proxy = work.rows().proxies.get(reference.server_id).await?;
    let proxy = proxy.ok_or_else(|| gone("proxy", reference.server_id))?;
    let host = work.host(proxy.host_id).await?;
    if let Some(package) = &step.package {
        work.check_package(package).await?;
    }

    let facts = work.describe(&host, work.deadline).await?.facts;
    if let Some(package) = &step.package
        && ![facts.architecture.as_str(), "noarch"].contains(&package.architecture())
    {
        let (package, architecture) = (package.clone(), facts.architecture);
        return Err(LocalError::Architecture { package, host: host.inner_ip, architecture }.into());
    }
    let line = format!(
        "host {} ({}): agent {}, {}, {} processors",
        host.inner_ip, facts.hostname, facts.agent_version, facts.architecture, facts.cpu_count
    );
    work.keep(&host, facts, None).await?;
    work.line(&line).await
}

/// Takes back what the request wrote: the proxy, or the cluster that has no proxies.
async fn forget(step: &PrepareObproxyInstall, work: &mut Work<'_>) -> Done {
    let (proxy, cluster) = (step.proxy.as_ref().map(|proxy| proxy.server_id), step.cluster_id);
    work.change(move |rows| Box::pin(forget_rows(rows, proxy, cluster))).await?;
    let line = match proxy {
        Some(proxy) => format!("proxy {proxy} is not registered any more"),
        None => format!("proxy cluster {cluster} is not registered any more"),
    };
    work.line(&line).await
}

async fn forget_rows(rows: &mut AnyConnection, proxy: Option<i64>, cluster: i64) -> Result<(), StoreError> {
    if let Some(proxy) = proxy {
        obproxy::delete_proxy(rows, proxy).await?;
        return Ok(());
    }
    for proxy in obproxy::proxies_of(rows, &[cluster]).await? {
        if proxy.status == ObproxyStatus::Creating {
            obproxy::delete_proxy(rows, proxy.id).await?;
        }
    }
    if obproxy::proxies_of(rows, &[cluster]).await?.is_empty() {
        obproxy::delete(rows, cluster).await?;
    }
    Ok(())
}

impl Adapter for UpdateObproxyStatus {
    fn execute<'a>(&'a self, work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(async {
            match set_status(self.server_id, ObproxyStatus::Running, work).await? {
                true => Ok(()),
                false => Err(LocalError::Gone { what: "proxy", id: self.server_id }.into()),
            }
        })
    }

    fn undo<'a>(&'a self, work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(async { set_status(self.server_id, ObproxyStatus::Creating, work).await.map(|_| ()) })
    }
}

impl Adapter for PrepareObproxyOffline {
    fn execute<'a>(&'a self, work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(prepare_offline(self, work))
    }

    fn undo<'a>(&'a self, work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        // One that is not known here stays DELETING, as it is.
        let before = self.before.parse().unwrap_or(ObproxyStatus::Deleting);
        Box::pin(async move { set_status(self.proxy.server_id, before, work).await.map(|_| ()) })
    }
}

/// Nothing is removed anywhere before every agent that has to do it has answered.
async fn prepare_offline(step: &PrepareObproxyOffline, work: &mut Work<'_>) -> Done {
    let id = step.proxy.server_id;
    let proxy = work.rows().proxies.get(id).await?.ok_or(LocalError::Gone { what: "proxy", id })?;
    if step.skips_host {
        work.line(&format!("host {} is left out: what is on it of proxy {id} stays there", proxy.host_id)).await?;
    } else {
        let host = work.host(proxy.host_id).await?;
        let facts = work.describe(&host, work.deadline).await?.facts;
        let line = format!("host {} ({}): agent {}", host.inner_ip, facts.hostname, facts.agent_version);
        work.keep(&host, facts, None).await?;
        work.line(&line).await?;
    }
    match set_status(id, ObproxyStatus::Deleting, work).await? {
        true => Ok(()),
        false => Err(LocalError::Gone { what: "proxy", id }.into()),
    }
}

impl Adapter for DeleteObproxyInfo {
    fn execute<'a>(&'a self, work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(async {
            let ids: Vec<i64> = self.proxies.iter().map(|known| known.proxy.server_id).collect();
            let deleted = ids.clone();
            work.change(move |rows| Box::pin(delete_proxies(rows, deleted.clone()))).await?;
            for id in ids {
                work.line(&format!("proxy {id} is not registered any more")).await?;
            }
            Ok(())
        })
    }

    fn undo<'a>(&'a self, work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(async {
            let known = self.proxies.clone();
            work.change(move |rows| Box::pin(register_again(rows, known.clone()))).await?;
            work.line(&format!("{} proxies are registered again", self.proxies.len())).await
        })
    }
}

async fn delete_proxies(rows: &mut AnyConnection, ids: Vec<i64>) -> Result<(), StoreError> {
    for id in ids {
        obproxy::delete_proxy(rows, id).await?;
    }
    Ok(())
}

/// Those that are missing. They are DELETING until "Prepare offline obproxy" is undone, too.
async fn register_again(rows: &mut AnyConnection, known: Vec<KnownObproxy>) -> Result<(), StoreError> {
    let ids: Vec<i64> = known.iter().map(|known| known.proxy.server_id).collect();
    let there = obproxy::proxies(rows, &ids).await?;
    let now = now_micros();
    let again = |known: KnownObproxy| Obproxy {
        id: known.proxy.server_id,
        cluster_id: known.proxy.cluster_id,
        host_id: known.host_id,
        sql_port: known.sql_port,
        exporter_port: known.exporter_port,
        rpc_port: known.rpc_port,
        architecture: known.version.architecture().to_owned(),
        version: known.version,
        status: ObproxyStatus::Deleting,
        parameter_version: known.parameter_version,
        created_at: known.created_at,
        updated_at: now,
    };
    let missing = known.into_iter().filter(|known| !there.contains_key(&known.proxy.server_id)).map(again);
    obproxy::write_proxies(rows, &missing.collect::<Vec<_>>()).await
}

impl Adapter for FinishClusterOffline {
    fn execute<'a>(&'a self, work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(async {
            let id = self.cluster_id;
            work.change(move |rows| Box::pin(obproxy::delete(rows, id))).await?;
            work.line(&format!("proxy cluster {id} is not registered any more")).await
        })
    }
}

/// Answers whether there is such a proxy.
async fn set_status(id: i64, status: ObproxyStatus, work: &mut Work<'_>) -> Result<bool, Stopped> {
    let known = work.change(move |rows| Box::pin(lead_to(rows, id, status))).await?;
    if known {
        work.line(&format!("proxy {id} is {status}")).await?;
    }
    Ok(known)
}

/// What the host of a proxy is follows from what runs on it.
async fn lead_to(rows: &mut AnyConnection, id: i64, status: ObproxyStatus) -> Result<bool, StoreError> {
    let known = obproxy::set_proxy_status(rows, id, status).await?;
    if known {
        host::follow_proxy(rows, id).await?;
    }
    Ok(known)
}
