//! "Prepare host": a host whose agent runs is checked and taken under control.
//!
//! Names, timeouts and series ids of the first and the last node are those of OCP's documented sample of
//! `POST /api/v2/compute/hosts/batchCreate`. What OCP does between them, installing its agent over SSH, was done by the
//! host's administrator; in its place the agent looks at its host.

use super::{Builder, Context, ObjectKind, ObjectLock, Place, TaskPlan};
use crate::steps::{
    CheckCommands, CheckHost, PrepareHost, Step, UpdateHostStatus,
    values::{CommandName, InvalidValue},
};
use std::net::IpAddr;

const TASK_NAME: &str = "Prepare host";
/// What later steps call: obproxyd.sh its probe, the agent the package manager.
const COMMANDS_TO_CHECK: [&str; 2] = ["nc", "rpm"];
/// For the agent's journal and logs; an installation checks for itself what it needs besides.
const DISK_BYTES: u64 = 64 << 20;

/// Series ids: of the sample, and behind its last.
mod series {
    pub(super) const PRE_CHECK: u32 = 1;
    pub(super) const UPDATE_STATUS: u32 = 4;
    pub(super) const CHECK_HOST: u32 = 5;
    pub(super) const CHECK_COMMANDS: u32 = 6;
}

/// A host that was written down as NEW.
#[derive(Debug, Clone, Copy)]
pub struct HostToPrepare {
    pub host_id: i64,
    pub inner_ip: IpAddr,
    pub agent_port: u16,
    /// None: what the agent says.
    pub metrics_port: Option<u16>,
}

pub fn prepare_host(host: HostToPrepare) -> Result<TaskPlan, InvalidValue> {
    let HostToPrepare { host_id, inner_ip, agent_port, metrics_port } = host;
    let place = Place { host_id: Some(host_id), parallel_index: -1 };
    let commands: Vec<CommandName> = COMMANDS_TO_CHECK.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    let agent_ports = [agent_port].into_iter().chain(metrics_port).collect();
    let steps = [
        (series::PRE_CHECK, Step::from(PrepareHost { host_id, asks_metrics_port: metrics_port.is_none() })),
        (series::CHECK_HOST, CheckHost { agent_ports, disk_bytes: DISK_BYTES }.into()),
        (series::CHECK_COMMANDS, CheckCommands { commands }.into()),
        (series::UPDATE_STATUS, UpdateHostStatus { host_id }.into()),
    ];
    let mut builder = Builder::default();
    let mut last = None;
    for (series_id, step) in steps {
        last = Some(builder.add(series_id, place, step, last.as_slice()));
    }
    let strings = [
        ("host_id", host_id.to_string()),
        ("inner_ip_address", inner_ip.to_string()),
        ("prohibit_rollback", "false".to_owned()),
    ];
    Ok(TaskPlan {
        name: TASK_NAME.into(),
        context: Context {
            list_map: [("commands_to_check".to_owned(), COMMANDS_TO_CHECK.map(ToOwned::to_owned).into())].into(),
            string_map: strings.map(|(key, value)| (key.to_owned(), value)).into(),
        },
        host_id: Some(host_id),
        obproxy_cluster_id: None,
        locks: vec![ObjectLock::exclusive(ObjectKind::Host, host_id)],
        nodes: builder.nodes,
    })
}
