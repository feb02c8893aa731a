//! "Restart OCP agent" and "Stop OCP agent", of one host or of several.
//!
//! Names, classes, timeouts and, where there is a sample, series ids are those of OCP's `agent/restart` and
//! `batchRestartAgents`. OCP stops and starts several processes of its agent; this one is a single process, which the
//! service manager of its host restarts in one act, so "Restart pos proxy" and, in a restart, "Stop all OCP agent
//! processes" have no counterpart.
//!
//! A restart reserves nothing: whatever runs on the host is taken up by the next process. A stop reserves its hosts,
//! because the tasks of a host whose agent is stopped would wait in vain.

use crate::{
    graph::NodeIndex,
    operations::{Builder, Context, NOWHERE, ObjectKind, ObjectLock, Place, PlannedNode, TaskPlan},
    steps::{AgentOperation, FinishAgentOperation, PrepareAgentOperation, RestartAgent, Step, StopAgent, Wait},
};

/// Series ids of the nodes of one agent, and of the two at which parallel branches meet.
struct Series {
    prepare: u32,
    act: u32,
    finish: u32,
    waits: [u32; 2],
}

impl Series {
    fn of(operation: AgentOperation, alone: bool) -> Self {
        match (operation, alone) {
            (AgentOperation::Restart, true) => Self { prepare: 2, act: 1, finish: 3, waits: [0, 4] },
            (AgentOperation::Restart, false) => Self { prepare: 2, act: 5, finish: 6, waits: [0, 3] },
            (AgentOperation::Stop, true) => Self { prepare: 2, act: 4, finish: 3, waits: [0, 1] },
            (AgentOperation::Stop, false) => Self { prepare: 2, act: 1, finish: 6, waits: [0, 3] },
        }
    }
}

/// One host gives a chain. Several give parallel branches that wait for each other between the steps, so that no agent is
/// touched before all have answered.
pub fn operate_agents(operation: AgentOperation, hosts: &[i64]) -> TaskPlan {
    let locks = match operation {
        AgentOperation::Restart => Vec::new(),
        AgentOperation::Stop => hosts.iter().map(|id| ObjectLock::exclusive(ObjectKind::Host, *id)).collect(),
    };
    let ids = hosts.iter().map(ToString::to_string).collect();
    TaskPlan {
        name: match operation {
            AgentOperation::Restart => "Restart OCP agent".into(),
            AgentOperation::Stop => "Stop OCP agent".into(),
        },
        context: Context {
            list_map: [("host_ids".to_owned(), ids)].into(),
            string_map: [("prohibit_rollback".to_owned(), "false".to_owned())].into(),
        },
        host_id: match hosts {
            [alone] => Some(*alone),
            _ => None,
        },
        obproxy_cluster_id: None,
        locks,
        nodes: nodes(operation, hosts),
    }
}

fn nodes(operation: AgentOperation, hosts: &[i64]) -> Vec<PlannedNode> {
    let series = Series::of(operation, hosts.len() == 1);
    let [first_wait, second_wait] = series.waits;
    let act = match operation {
        AgentOperation::Restart => Step::from(RestartAgent {}),
        AgentOperation::Stop => Step::from(StopAgent {}),
    };
    let mut builder = Builder::default();
    let last = for_each(&mut builder, hosts, series.prepare, &[], |host_id| {
        PrepareAgentOperation { host_id, operation }.into()
    });
    let last = meet(&mut builder, first_wait, last);
    let last = for_each(&mut builder, hosts, series.act, &last, |_| act.clone());
    let last = meet(&mut builder, second_wait, last);
    for_each(&mut builder, hosts, series.finish, &last, |host_id| FinishAgentOperation { host_id, operation }.into());
    builder.nodes
}

fn for_each(
    builder: &mut Builder,
    hosts: &[i64],
    series_id: u32,
    upstreams: &[NodeIndex],
    step: impl Fn(i64) -> Step,
) -> Vec<NodeIndex> {
    let alone = hosts.len() == 1;
    let add = |(index, host_id): (i32, &i64)| {
        let parallel_index = if alone { -1 } else { index };
        builder.add(series_id, Place { host_id: Some(*host_id), parallel_index }, step(*host_id), upstreams)
    };
    (0..).zip(hosts).map(add).collect()
}

/// Nobody has to wait for one alone.
fn meet(builder: &mut Builder, series_id: u32, upstreams: Vec<NodeIndex>) -> Vec<NodeIndex> {
    if upstreams.len() < 2 {
        return upstreams;
    }
    vec![builder.add(series_id, NOWHERE, Wait {}.into(), &upstreams)]
}
