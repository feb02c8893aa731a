//! The kinds of work a subtask can be. One file per kind: its arguments, what the engine and the agent must know of it,
//! and its way to and from the contract's message.

mod agent;
mod agent_step;
mod coordinator_step;
mod fields;
mod host;
mod instance;
mod obproxy;
mod package;
mod task;
pub mod values;

// The kinds themselves come with their lists.
pub use agent::{operation::AgentOperation, upgrade::AgentPackage};
pub use agent_step::*;
pub use coordinator_step::*;
pub use fields::{FieldViolation, Fields};
pub use instance::{Instance, InstanceKind};
pub use obproxy::{
    delete_info::KnownObproxy,
    prepare_install::ObproxyRef,
    secrets::{OBPROXY_SYS_PASSWORD, OBSERVER_SYS_PASSWORD},
    start::WorkMode,
    version::{DEFAULT_RPC_PORT, ObproxyVersion},
};

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How a step behaves when it meets its own past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Touches nothing: no journal, no sync, simply asked again.
    Pure,
    /// Compares and then writes; running it again is harmless.
    Rerun,
    /// Looks at the world first (rpm database, process, port) and does what is missing.
    Probe,
    /// Never repeated without an operator.
    Once,
}

/// What OCP calls a step, and how the engine has to treat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepInfo {
    /// OCP's name and description of the subtask.
    pub name: &'static str,
    pub class_name: &'static str,
    /// None: no limit (OCP prints 0).
    pub timeout: Option<Duration>,
    pub policy: Policy,
    /// There may be something to take back.
    pub undoable: bool,
}

const fn info(name: &'static str, class_name: &'static str, seconds: u64, policy: Policy, undoable: bool) -> StepInfo {
    let timeout = if seconds == 0 { None } else { Some(Duration::from_secs(seconds)) };
    StepInfo { name, class_name, timeout, policy, undoable }
}

/// What one node of a task does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "place", content = "step", rename_all = "snake_case")]
pub enum Step {
    Coordinator(CoordinatorStep),
    Agent(AgentStep),
}

impl Step {
    pub fn info(&self) -> &'static StepInfo {
        match self {
            Self::Coordinator(step) => step.info(),
            Self::Agent(step) => step.info(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// As earlier versions have written it.
    #[test]
    fn plans_of_earlier_versions_are_read_and_written_alike() {
        let kept = |place: &str, kind: &str, arguments: Value| {
            let mut step = json!({"kind": kind});
            step.as_object_mut().unwrap().extend(arguments.as_object().unwrap().clone());
            json!({"place": place, "step": step})
        };
        let package = "obproxy-1.9.1.1-1.el7.x86_64";
        let instance = json!({"kind": "obproxy", "sql_port": 2883, "exporter_port": 2884, "cluster_name": "p",
            "cluster_id": 1, "server_id": 2});
        let sha256 = "a".repeat(64);
        let of_coordinator = [
            (
                "prepare_obproxy_install",
                json!({"cluster_id": 1, "proxy": {"cluster_id": 1, "server_id": 2}, "package": package}),
            ),
            ("update_obproxy_status", json!({"cluster_id": 1, "server_id": 2})),
            ("finish", json!({})),
            ("prepare_host", json!({"host_id": 1, "asks_metrics_port": true})),
            ("update_host_status", json!({"host_id": 1})),
            ("prepare_agent_operation", json!({"host_id": 1, "operation": "restart"})),
            ("finish_agent_operation", json!({"host_id": 1, "operation": "stop"})),
            ("prepare_agent_upgrade", json!({"host_id": 1, "packages": [package]})),
            ("finish_agent_upgrade", json!({"host_id": 1})),
            ("wait", json!({})),
            ("begin", json!({})),
            (
                "prepare_obproxy_offline",
                json!({"proxy": {"cluster_id": 1, "server_id": 2}, "before": "RUNNING", "skips_host": false}),
            ),
            (
                "delete_obproxy_info",
                json!({"proxies": [{"proxy": {"cluster_id": 1, "server_id": 2}, "host_id": 3, "sql_port": 2883,
                "exporter_port": 2884, "version": package, "parameter_version": 1, "created_at": 5}]}),
            ),
            ("finish_cluster_offline", json!({"cluster_id": 1})),
            ("unreserve_hosts", json!({"host_ids": [1]})),
        ];
        let start = json!({"package": package, "app_name": "p", "sql_port": 2883, "exporter_port": 2884,
            "rpc_port": 2885, "work_mode": {"mode": "CONFIG_URL", "url": "http://h/?a=b"}, "startup_parameters": []});
        let of_agent = [
            ("check_commands", json!({"commands": ["nc"]})),
            ("check_processes", json!({"keywords": ["obproxy"]})),
            ("check_instance", json!({"ports": [2883], "architecture": "x86_64", "disk_bytes": 1})),
            ("install_package", json!({"package": package, "sha256": sha256})),
            ("start_obproxy", start.clone()),
            (
                "uninstall_obproxy",
                json!({"start": start, "instance": instance, "parameters": [], "sha256": sha256, "keep_logs": true}),
            ),
            ("retire_exporter", json!({"instance": instance})),
            ("sync_obproxy_parameters", json!({"sql_port": 2883, "parameters": [{"name": "a", "value": "b"}]})),
            ("set_obproxy_passwords", json!({"sql_port": 2883})),
            ("refresh_config", json!({"instance": instance})),
            ("expose_exporter", json!({"instance": instance})),
            ("check_host", json!({"agent_ports": [1], "disk_bytes": 1})),
            ("restart_agent", json!({})),
            ("stop_agent", json!({})),
            ("upgrade_agent", json!({"packages": [{"package": "oblet-agent-0.1.0-2.x86_64", "sha256": sha256}]})),
        ];
        let steps = of_coordinator.into_iter().map(|(kind, arguments)| kept("coordinator", kind, arguments));
        for text in steps.chain(of_agent.into_iter().map(|(kind, arguments)| kept("agent", kind, arguments))) {
            let step: Step = serde_json::from_value(text.clone()).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(serde_json::to_value(&step).unwrap(), text);
            let Step::Agent(step) = step else { continue };
            assert_eq!(text["step"]["kind"], step.kind(), "the contract and the store have one name");
            let message = crate::rpc::v1::Step::from(&step);
            assert_eq!(AgentStep::try_from(message).unwrap(), step);
        }
    }
}
