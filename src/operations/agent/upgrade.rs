//! "Upgrade OCP agent" of many hosts, in waves.
//!
//! A wave begins when every agent of the one before serves from its package, so that a package that does not work stops
//! at the first few hosts. Hosts are not reserved: whatever runs on them is taken up by the next process, and the
//! processes of databases are not the agent's.

use crate::{
    graph::NodeIndex,
    operations::{Builder, Context, NOWHERE, Place, TaskPlan},
    steps::{AgentPackage, FinishAgentUpgrade, PrepareAgentUpgrade, UpgradeAgent, Wait, values::PackageRef},
};
use std::num::NonZeroUsize;

const PREPARE: u32 = 0;
const UPGRADE: u32 = 1;
const FINISH: u32 = 2;
const WAIT: u32 = 3;

/// At most `parallel` agents are exchanged at a time.
pub fn upgrade_agents(hosts: &[i64], packages: &[AgentPackage], parallel: NonZeroUsize) -> TaskPlan {
    let names: Vec<PackageRef> = packages.iter().map(|item| item.package.clone()).collect();
    let mut builder = Builder::default();
    let mut before: Vec<NodeIndex> = Vec::new();
    let mut parallel_index = 0..;
    let waves = hosts.chunks(parallel.get());
    let last = waves.len().saturating_sub(1);
    for (wave, hosts) in waves.enumerate() {
        let mut finished = Vec::new();
        for host_id in hosts.iter().copied() {
            let place = Place { host_id: Some(host_id), parallel_index: parallel_index.next().unwrap_or(-1) };
            let prepare = PrepareAgentUpgrade { host_id, packages: names.clone() };
            let prepare = prepare.into();
            let prepared = builder.add(PREPARE, place, prepare, &before);
            let upgrade = UpgradeAgent { packages: packages.to_vec() }.into();
            let upgraded = builder.add(UPGRADE, place, upgrade, &[prepared]);
            let finish = FinishAgentUpgrade { host_id }.into();
            finished.push(builder.add(FINISH, place, finish, &[upgraded]));
        }
        if wave != last {
            before = vec![builder.add(WAIT, NOWHERE, Wait {}.into(), &finished)];
        }
    }
    TaskPlan {
        name: "Upgrade OCP agent".into(),
        context: Context {
            list_map: [
                ("host_ids".to_owned(), hosts.iter().map(ToString::to_string).collect()),
                ("packages".to_owned(), names.iter().map(PackageRef::file_name).collect()),
            ]
            .into(),
            string_map: [("prohibit_rollback".to_owned(), "false".to_owned())].into(),
        },
        host_id: match hosts {
            [alone] => Some(*alone),
            _ => None,
        },
        obproxy_cluster_id: None,
        locks: Vec::new(),
        nodes: builder.nodes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::PlannedNode;

    fn plan(hosts: &[i64], parallel: usize) -> TaskPlan {
        let package = AgentPackage {
            package: "oblet-agent_0.1.0-2_amd64.deb".parse().unwrap(),
            sha256: "a".repeat(64).parse().unwrap(),
        };
        upgrade_agents(hosts, &[package], NonZeroUsize::new(parallel).unwrap())
    }

    fn of_host(plan: &TaskPlan, host: i64) -> Vec<&PlannedNode> {
        plan.nodes.iter().filter(|node| node.host_id == Some(host)).collect()
    }

    #[test]
    fn a_wave_begins_when_all_of_the_one_before_are_done() {
        let plan = plan(&[1, 2, 3, 4, 5], 2);
        plan.graph().unwrap();
        let waits: Vec<_> = plan.nodes.iter().filter(|node| node.host_id.is_none()).collect();
        assert_eq!(waits.len(), 2);
        assert!(waits.iter().all(|wait| wait.upstreams.len() == 2));
        for host in 1..=5 {
            let nodes = of_host(&plan, host);
            assert_eq!(nodes.len(), 3);
            match host {
                1 | 2 => assert!(nodes[0].upstreams.is_empty()),
                _ => {
                    let [wait] = nodes[0].upstreams[..] else { panic!("{:?}", nodes[0].upstreams) };
                    let wait = plan.node(wait).unwrap();
                    let awaited = wait.upstreams.iter().map(|index| plan.node(*index).unwrap().host_id.unwrap());
                    let first = if host < 5 { 1 } else { 3 };
                    assert_eq!(awaited.collect::<Vec<_>>(), [first, first + 1]);
                }
            }
        }
    }

    #[test]
    fn one_wave_waits_for_nothing() {
        let plan = plan(&[7], 4);
        assert_eq!((plan.host_id, plan.nodes.len()), (Some(7), 3));
        assert!(plan.locks.is_empty());
    }
}
