//! What a simulation lets the engine do: real plans, and graphs of no sense.

use super::{packages, things::Thing, world::COORDINATOR};
use crate::{
    graph::NodeIndex,
    operations::{
        HostToPrepare, NewProxy, ObproxyInstall, ObproxyRemoval, PlannedNode, RemovedProxy, TaskPlan, create_cluster,
        install_obproxy, operate_agents, prepare_host, remove_obproxies, upgrade_agents,
    },
    steps::{
        AgentOperation, AgentPackage, AgentStep, CoordinatorStep, ExposeExporter, Finish, Instance, InstanceKind,
        KnownObproxy, ObproxyRef, Policy, PrepareObproxyInstall, RefreshConfig, SetObproxyPasswords, StartObproxy,
        Step, SyncObproxyParameters, WorkMode, values::Port,
    },
};
use std::num::NonZeroUsize;
use uuid::Uuid;

pub(super) fn host_name(host_id: i64) -> String {
    format!("host-{host_id}")
}

/// A plan that shares nothing with that of another `number`, so that each thing belongs to one task.
pub(super) fn plan(random: &mut fastrand::Rng, number: u16, hosts: i64) -> TaskPlan {
    match random.u8(0..5) {
        4 => {
            let hosts: Vec<i64> = (1..=random.i64(1..=hosts)).collect();
            remove_obproxies(&removal(number, &hosts))
        }
        0 | 1 => install_obproxy(&install(number), proxy(number, random.i64(1..=hosts))).unwrap(),
        2 => {
            let proxies: Vec<_> = (1..=random.i64(1..=hosts)).map(|host| proxy(number, host)).collect();
            create_cluster(number.into(), Some((&install(number), &proxies))).unwrap()
        }
        _ => nonsense(random, number, hosts),
    }
}

fn proxy(number: u16, host_id: i64) -> NewProxy {
    NewProxy { host_id, server_id: i64::from(number) * 100 + host_id }
}

fn port(number: u16, offset: u16) -> Port {
    i64::from(2000 + number * 100 + offset).try_into().unwrap()
}

pub(super) fn install(number: u16) -> ObproxyInstall {
    ObproxyInstall {
        cluster_id: number.into(),
        parameter_version: 1,
        start: StartObproxy {
            package: format!("obproxy-4.3.{number}.0-1.el7.x86_64").parse().unwrap(),
            app_name: format!("cluster{number}").parse().unwrap(),
            sql_port: port(number, 0),
            exporter_port: port(number, 1),
            rpc_port: Some(port(number, 2)),
            work_mode: WorkMode::ConfigUrl { url: "http://127.0.0.1/services?Action=ObProxyConfig".into() },
            startup_parameters: Vec::new(),
        },
        parameters: Vec::new(),
        sha256: packages::digest_of(number),
        disk_bytes: 1 << 20,
    }
}

/// The cluster of [`install`], with a proxy on each of these hosts.
pub(super) fn removal(number: u16, hosts: &[i64]) -> ObproxyRemoval {
    let ObproxyInstall { cluster_id, start, parameters, sha256, parameter_version, .. } = install(number);
    let removed = |host: &i64| RemovedProxy {
        known: KnownObproxy {
            proxy: ObproxyRef { cluster_id, server_id: proxy(number, *host).server_id },
            host_id: *host,
            sql_port: start.sql_port,
            exporter_port: start.exporter_port,
            rpc_port: start.rpc_port,
            version: start.package.clone(),
            parameter_version,
            created_at: 1,
        },
        status: "RUNNING".into(),
        start: start.clone(),
        parameters: parameters.clone(),
        sha256: Some(sha256.clone()),
        skips_host: false,
    };
    ObproxyRemoval {
        cluster_id,
        cluster_name: start.app_name.clone(),
        with_cluster: false,
        keep_logs: true,
        proxies: hosts.iter().map(removed).collect(),
    }
}

/// Steps in an order that no operation has: wide, with joins, on all hosts.
pub(super) fn nonsense(random: &mut fastrand::Rng, number: u16, hosts: i64) -> TaskPlan {
    let nodes = (0..random.u32(3..15)).map(|index| PlannedNode {
        step: Step::Agent(small_step(random, number, index)),
        host_id: Some(random.i64(1..=hosts)),
        series_id: index,
        parallel_index: -1,
        upstreams: (0..index).filter(|_| random.u32(0..index + 1) == 0).map(NodeIndex).collect(),
        execute_id: Uuid::now_v7(),
        undo_id: Uuid::now_v7(),
    });
    TaskPlan { name: "Nonsense".into(), nodes: nodes.collect(), ..TaskPlan::default() }
}

fn small_step(random: &mut fastrand::Rng, number: u16, index: u32) -> AgentStep {
    let sql_port = port(number, u16::try_from(index).unwrap() * 2);
    let instance = Instance {
        kind: InstanceKind::Obproxy,
        sql_port,
        exporter_port: port(number, 1),
        cluster_name: format!("cluster{number}").parse().unwrap(),
        cluster_id: number.into(),
        server_id: index.into(),
    };
    match random.u8(0..4) {
        0 => AgentStep::SyncObproxyParameters(SyncObproxyParameters { sql_port, parameters: Vec::new() }),
        1 => AgentStep::SetObproxyPasswords(SetObproxyPasswords { sql_port }),
        2 => AgentStep::RefreshConfig(RefreshConfig { instance }),
        _ => AgentStep::ExposeExporter(ExposeExporter { instance }),
    }
}

/// One step of every kind, as the operations have them.
pub(super) fn kinds() -> Vec<Step> {
    let package = AgentPackage {
        package: "oblet-agent-0.1.0-2.x86_64".parse().unwrap(),
        sha256: "a".repeat(64).parse().unwrap(),
    };
    let host = HostToPrepare {
        host_id: 1,
        inner_ip: [192, 0, 2, 1].into(),
        agent_port: port(0, 3).into(),
        metrics_port: None,
    };
    let plans = [
        install_obproxy(&install(0), proxy(0, 1)).unwrap(),
        prepare_host(host).unwrap(),
        // Branches of two hosts wait for each other.
        operate_agents(AgentOperation::Restart, &[1, 2]),
        operate_agents(AgentOperation::Stop, &[1]),
        upgrade_agents(&[1], &[package], NonZeroUsize::MIN),
        remove_obproxies(&removal(0, &[1])),
        remove_obproxies(&ObproxyRemoval { with_cluster: true, ..removal(0, &[1]) }),
    ];
    let mut steps: Vec<Step> = Vec::new();
    for step in plans.into_iter().flat_map(|plan| plan.nodes).map(|node| node.step) {
        if steps.iter().all(|known| kind(known) != kind(&step)) {
            steps.push(step);
        }
    }
    let of_agents = steps.iter().filter(|step| matches!(step, Step::Agent(_))).count();
    assert_eq!(of_agents, AgentStep::KINDS, "a kind of step is missing: give a plan that has it");
    assert_eq!(steps.len() - of_agents, CoordinatorStep::KINDS, "a kind of step is missing: give a plan that has it");
    steps
}

/// The name under which plans keep it.
pub(super) fn kind(step: &Step) -> String {
    let kept = serde_json::to_value(step).unwrap();
    kept["step"]["kind"].as_str().unwrap().to_owned()
}

/// The step between one that comes before it and one that comes after it.
pub(super) fn between(step: Step) -> TaskPlan {
    let prepare =
        CoordinatorStep::PrepareObproxyInstall(PrepareObproxyInstall { cluster_id: 0, proxy: None, package: None });
    let steps = [Step::Coordinator(prepare), step, Finish {}.into()];
    let nodes = (0..).zip(steps).map(|(index, step)| PlannedNode {
        host_id: Some(1),
        step,
        series_id: index,
        parallel_index: -1,
        upstreams: index.checked_sub(1).map(NodeIndex).into_iter().collect(),
        execute_id: Uuid::now_v7(),
        undo_id: Uuid::now_v7(),
    });
    TaskPlan { name: "One step".into(), nodes: nodes.collect(), ..TaskPlan::default() }
}

/// What a node makes, if it makes anything.
pub(super) fn thing_of(node: &PlannedNode) -> Option<Thing> {
    match &node.step {
        Step::Agent(step) => thing(&host_name(node.host_id.unwrap()), step),
        Step::Coordinator(step) => local_thing(step),
    }
}

/// What the step makes on `host`; a check makes nothing.
pub(super) fn thing(host: &str, step: &AgentStep) -> Option<Thing> {
    if step.info().policy == Policy::Pure {
        return None;
    }
    let detail = match step {
        AgentStep::InstallPackage(install) => install.package.to_string(),
        AgentStep::StartObproxy(start) => start.sql_port.to_string(),
        AgentStep::SyncObproxyParameters(sync) => sync.sql_port.to_string(),
        AgentStep::SetObproxyPasswords(set) => set.sql_port.to_string(),
        AgentStep::RefreshConfig(refresh) => refresh.instance.sql_port.to_string(),
        AgentStep::ExposeExporter(expose) => expose.instance.sql_port.to_string(),
        AgentStep::UninstallObproxy(uninstall) => uninstall.start.sql_port.to_string(),
        AgentStep::RetireExporter(retire) => retire.instance.sql_port.to_string(),
        AgentStep::CheckCommands(_)
        | AgentStep::CheckProcesses(_)
        | AgentStep::CheckInstance(_)
        | AgentStep::CheckHost(_)
        | AgentStep::RestartAgent(_)
        | AgentStep::StopAgent(_)
        | AgentStep::UpgradeAgent(_) => String::new(),
    };
    Some(Thing { host: host.into(), what: format!("{} {detail}", step.kind()) })
}

pub(super) fn local_thing(step: &CoordinatorStep) -> Option<Thing> {
    match step {
        CoordinatorStep::UpdateObproxyStatus(proxy) => {
            Some(Thing { host: COORDINATOR.into(), what: format!("status of proxy {}", proxy.server_id) })
        }
        CoordinatorStep::DeleteObproxyInfo(deleted) => {
            let ids: Vec<_> = deleted.proxies.iter().map(|known| known.proxy.server_id.to_string()).collect();
            Some(Thing { host: COORDINATOR.into(), what: format!("no proxies {}", ids.join(" ")) })
        }
        CoordinatorStep::PrepareObproxyOffline(step) => {
            Some(Thing { host: COORDINATOR.into(), what: format!("proxy {} goes", step.proxy.server_id) })
        }
        CoordinatorStep::PrepareObproxyInstall(_)
        | CoordinatorStep::FinishClusterOffline(_)
        | CoordinatorStep::Begin(_)
        | CoordinatorStep::UnreserveHosts(_)
        | CoordinatorStep::Finish(_)
        | CoordinatorStep::PrepareHost(_)
        | CoordinatorStep::UpdateHostStatus(_)
        | CoordinatorStep::PrepareAgentOperation(_)
        | CoordinatorStep::FinishAgentOperation(_)
        | CoordinatorStep::PrepareAgentUpgrade(_)
        | CoordinatorStep::FinishAgentUpgrade(_)
        | CoordinatorStep::Wait(_) => None,
    }
}
