//! The agents that a task needs, and the key under which each knows an operation.

use super::{Shared, store::PreparationError};
use crate::{
    coordinator::{agents::Agent, quiet::QuietHosts},
    graph::Dispatch,
    operations::PlannedNode,
    rpc::v1,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The agents of a task's hosts. Their addresses do not change under a task, which reserves its hosts.
pub(super) struct Agents {
    shared: Arc<Shared>,
    known: Mutex<HashMap<i64, Agent>>,
}

impl Agents {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, known: Mutex::default() }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.shared.agent_epoch()
    }

    pub(super) fn quiet(&self) -> &QuietHosts<i64> {
        &self.shared.quiet
    }

    pub(super) async fn of(&self, host_id: Option<i64>) -> Result<Agent, PreparationError> {
        let host_id = host_id.unwrap_or(0);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&host_id).cloned();
        if let Some(agent) = known {
            return Ok(agent);
        }
        let address = self.shared.tasks.agent_address(host_id).await?.ok_or(PreparationError::NoHost(host_id))?;
        let agent = self.shared.agents.agent(address);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(host_id, agent.clone());
        Ok(agent)
    }
}

pub(super) fn operation_key(node: &PlannedNode, dispatch: Dispatch) -> v1::OperationKey {
    let operation_id = node.operation_id(dispatch.direction).to_string();
    v1::OperationKey { operation_id, attempt: dispatch.attempt }
}
