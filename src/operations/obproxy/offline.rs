//! "Offline obproxy": removing proxies of a cluster, and the cluster itself.
//!
//! Names, classes, timeouts, series ids and edges are those of OCP's documented sample of
//! `DELETE /api/v2/obproxy/clusters/{id}/obproxies/{obproxyIds}`.

use crate::{
    graph::NodeIndex,
    operations::{Builder, Context, NOWHERE, ObjectKind, ObjectLock, Place, TaskPlan, obproxy::instance},
    steps::{
        Begin, DeleteObproxyInfo, Finish, FinishClusterOffline, Instance, KnownObproxy, PrepareObproxyOffline,
        RetireExporter, StartObproxy, Step, UninstallObproxy, UnreserveHosts, Wait,
        values::{ClusterName, Parameter, Sha256},
    },
};
use std::collections::BTreeSet;

/// Series ids of the sample.
mod series {
    pub(super) const DELETE_INFO: u32 = 0;
    pub(super) const UNINSTALL: u32 = 1;
    pub(super) const FINISH: u32 = 2;
    pub(super) const UNRESERVE: u32 = 3;
    pub(super) const WAIT: u32 = 4;
    pub(super) const PREPARE: u32 = 5;
    pub(super) const START: u32 = 6;
    pub(super) const RETIRE_EXPORTER: u32 = 7;
}

/// What is to go.
#[derive(Debug, Clone)]
pub struct ObproxyRemoval {
    pub cluster_id: i64,
    pub cluster_name: ClusterName,
    /// The cluster goes, too; then these are all its proxies.
    pub with_cluster: bool,
    /// Logs stay on the hosts.
    pub keep_logs: bool,
    pub proxies: Vec<RemovedProxy>,
}

/// A proxy that is to go.
#[derive(Debug, Clone)]
pub struct RemovedProxy {
    pub known: KnownObproxy,
    /// Its status.
    pub status: String,
    /// How it is brought back.
    pub start: StartObproxy,
    pub parameters: Vec<Parameter>,
    /// Digest of its package's file, if the coordinator has that.
    pub sha256: Option<Sha256>,
    /// Its host is gone: what is on it stays there.
    pub skips_host: bool,
}

impl RemovedProxy {
    fn instance(&self) -> Instance {
        let proxy = &self.known.proxy;
        instance(&self.start, proxy.cluster_id, proxy.server_id)
    }
}

/// One task, with a branch for each proxy. Nothing is removed before every agent has answered.
pub fn remove_obproxies(removal: &ObproxyRemoval) -> TaskPlan {
    let mut builder = Builder::default();
    let first = builder.add(series::START, NOWHERE, Begin {}.into(), &[]);
    let last = for_each(&mut builder, removal, series::PREPARE, first, |removed| {
        let RemovedProxy { known, status, skips_host, .. } = removed;
        Some(
            PrepareObproxyOffline { proxy: known.proxy.clone(), before: status.clone(), skips_host: *skips_host }
                .into(),
        )
    });
    let wait = builder.add(series::WAIT, NOWHERE, Wait {}.into(), &last);
    let last = for_each(&mut builder, removal, series::UNINSTALL, wait, |removed| {
        let uninstall = || UninstallObproxy {
            start: removed.start.clone(),
            instance: removed.instance(),
            parameters: removed.parameters.clone(),
            sha256: removed.sha256.clone(),
            keep_logs: removal.keep_logs,
        };
        (!removed.skips_host).then(uninstall).map(Step::from)
    });
    let known = removal.proxies.iter().map(|removed| removed.known.clone()).collect();
    let deleted = builder.add(series::DELETE_INFO, NOWHERE, DeleteObproxyInfo { proxies: known }.into(), &last);
    let last = for_each(&mut builder, removal, series::RETIRE_EXPORTER, deleted, |removed| {
        let retire = || RetireExporter { instance: removed.instance() };
        (!removed.skips_host).then(retire).map(Step::from)
    });
    let hosts: BTreeSet<i64> = removal.proxies.iter().map(|removed| removed.known.host_id).collect();
    let unreserve = UnreserveHosts { host_ids: hosts.iter().copied().collect() };
    let freed = builder.add(series::UNRESERVE, NOWHERE, unreserve.into(), &last);
    let finish = if removal.with_cluster {
        FinishClusterOffline { cluster_id: removal.cluster_id }.into()
    } else {
        Finish {}.into()
    };
    builder.add(series::FINISH, NOWHERE, finish, &[freed]);

    let cluster = if removal.with_cluster { ObjectLock::exclusive } else { ObjectLock::shared };
    let mut locks = vec![cluster(ObjectKind::ObproxyCluster, removal.cluster_id)];
    locks.extend(hosts.iter().map(|id| ObjectLock::exclusive(ObjectKind::Host, *id)));
    let proxy_lock = |removed: &RemovedProxy| ObjectLock::exclusive(ObjectKind::Obproxy, removed.known.proxy.server_id);
    locks.extend(removal.proxies.iter().map(proxy_lock));
    TaskPlan {
        name: "Offline obproxy".into(),
        context: context(removal, &hosts),
        host_id: None,
        obproxy_cluster_id: Some(removal.cluster_id),
        locks,
        nodes: builder.nodes,
    }
}

/// A branch for each proxy that has such a node; answers where they meet again.
fn for_each(
    builder: &mut Builder,
    removal: &ObproxyRemoval,
    series_id: u32,
    upstream: NodeIndex,
    step: impl Fn(&RemovedProxy) -> Option<Step>,
) -> Vec<NodeIndex> {
    let mut last = Vec::new();
    for (parallel_index, removed) in (0..).zip(&removal.proxies) {
        let Some(step) = step(removed) else { continue };
        let place = Place { host_id: Some(removed.known.host_id), parallel_index };
        last.push(builder.add(series_id, place, step, &[upstream]));
    }
    if last.is_empty() { vec![upstream] } else { last }
}

fn context(removal: &ObproxyRemoval, hosts: &BTreeSet<i64>) -> Context {
    let servers = removal.proxies.iter().map(|removed| removed.known.proxy.server_id.to_string()).collect();
    let hosts = hosts.iter().map(ToString::to_string).collect();
    let strings = [
        ("service_type", "OB_PROXY".to_owned()),
        ("obproxy_need_delete_cluster", removal.with_cluster.to_string()),
        ("prohibit_rollback", "false".to_owned()),
        ("service_name", removal.cluster_name.to_string()),
    ];
    Context {
        list_map: [("obproxy_server_ids".to_owned(), servers), ("host_ids".to_owned(), hosts)].into(),
        string_map: strings.map(|(key, value)| (key.to_owned(), value)).into(),
    }
}
