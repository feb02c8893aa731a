//! Tells agents that outcomes are safe, so that they may forget them (window W5).
//!
//! An acknowledgement that does not get through is not lost: a task at rest counts as acknowledged only after every one
//! of its outcomes is, and until then housekeeping tells them all again.

use super::{
    Shared,
    attempt::backoff,
    hosts::{Agents, operation_key},
    store::{PreparationError, Write},
};
use crate::{
    coordinator::{
        agents::CallError,
        store::task::{LoadedTask, TaskId},
    },
    graph::Dispatch,
    operations::{PlannedNode, TaskPlan},
    rpc::v1,
    steps::{Policy, Step},
};
use futures_util::{StreamExt as _, stream};
use std::{collections::BTreeMap, sync::Arc};
use tokio::task::JoinSet;

/// A task that has just come to rest tries for about a minute. What is told again later is told again and again.
const TRIES: usize = 10;
/// Hosts of one task that are told at a time.
const HOSTS_AT_A_TIME: usize = 16;

pub(super) struct Acknowledgements {
    agents: Arc<Agents>,
    plan: Arc<TaskPlan>,
    under_way: JoinSet<bool>,
    all_through: bool,
    /// It was tried before, so hosts that did not answer then are left in peace for a while.
    again: bool,
}

impl Acknowledgements {
    pub(super) fn new(agents: Arc<Agents>, plan: Arc<TaskPlan>) -> Self {
        Self { agents, plan, under_way: JoinSet::new(), all_through: true, again: false }
    }

    pub(super) fn send(&mut self, ended: &[Dispatch]) {
        while let Some(through) = self.under_way.try_join_next() {
            self.all_through &= through.unwrap_or(false);
        }
        let key = |dispatch: &Dispatch| {
            let node = self.plan.node(dispatch.node).filter(|node| is_journaled(node))?;
            Some((node.host_id, operation_key(node, *dispatch)))
        };
        let keys: Vec<_> = ended.iter().filter_map(key).collect();
        if !keys.is_empty() {
            self.under_way.spawn(acknowledge(Arc::clone(&self.agents), keys, self.again));
        }
    }

    /// What is left to do about a task at rest whose events are those before `next_sequence`.
    pub(super) fn left(self, shared: Arc<Shared>, task: TaskId, next_sequence: i64) -> Unfinished {
        Unfinished { acknowledgements: self, shared, task, next_sequence }
    }
}

/// Acknowledgements of a task at rest that are still on their way.
pub(super) struct Unfinished {
    acknowledgements: Acknowledgements,
    shared: Arc<Shared>,
    task: TaskId,
    next_sequence: i64,
}

impl Unfinished {
    /// Waits for the last ones, and notes it if all got through.
    pub(super) async fn finish(mut self) {
        let Acknowledgements { under_way, all_through, .. } = &mut self.acknowledgements;
        let all = async {
            while let Some(through) = under_way.join_next().await {
                *all_through &= through.unwrap_or(false);
            }
        };
        if self.shared.shutdown.run_until_cancelled(all).await.is_some() && self.acknowledgements.all_through {
            let (task, next_sequence) = (self.task, self.next_sequence);
            // What is not noted is told again later.
            let _ = self.shared.journal.write(Write::Acknowledged { task, next_sequence }).await;
        }
    }
}

/// Tells all outcomes of a task at rest once more.
pub(super) async fn again(shared: &Arc<Shared>, task: TaskId) {
    let Ok(LoadedTask { record, next_sequence, ended, .. }) = shared.tasks.load(task).await else { return };
    let agents = Arc::new(Agents::new(Arc::clone(shared)));
    let mut acknowledgements = Acknowledgements { again: true, ..Acknowledgements::new(agents, Arc::new(record.plan)) };
    acknowledgements.send(&ended);
    acknowledgements.left(Arc::clone(shared), task, next_sequence).finish().await;
}

/// Answers whether the agents know of all of them. Hosts are told beside each other, so that one that is gone holds up no
/// other; one whose agent cannot be told is asked no further: the rest would wait for the same silence, and all are told
/// again later.
async fn acknowledge(agents: Arc<Agents>, keys: Vec<(Option<i64>, v1::OperationKey)>, again: bool) -> bool {
    let mut by_host: BTreeMap<Option<i64>, Vec<v1::OperationKey>> = BTreeMap::new();
    for (host, key) in keys {
        by_host.entry(host).or_default().push(key);
    }
    let tell = async |(host, keys)| tell_host(&agents, host, keys, again).await;
    stream::iter(by_host)
        .map(tell)
        .buffer_unordered(HOSTS_AT_A_TIME)
        .fold(true, async |all, through| all && through)
        .await
}

async fn tell_host(agents: &Agents, host_id: Option<i64>, keys: Vec<v1::OperationKey>, again: bool) -> bool {
    let host = host_id.unwrap_or(0);
    if again && agents.quiet().rests(&host) {
        return false;
    }
    for key in keys {
        if !acknowledge_one(agents, host_id, key, if again { 1 } else { TRIES }).await {
            agents.quiet().did_not_answer(host);
            return false;
        }
    }
    agents.quiet().answered(&host);
    true
}

async fn acknowledge_one(agents: &Agents, host_id: Option<i64>, key: v1::OperationKey, tries: usize) -> bool {
    let agent = match agents.of(host_id).await {
        Ok(agent) => agent,
        // Forgotten together with its agent.
        Err(PreparationError::NoHost(_)) => return true,
        Err(_) => return false,
    };
    for delay in backoff().take(tries) {
        match agent.acknowledge(key.clone(), agents.epoch()).await {
            Err(CallError::Unknown { .. }) => tokio::time::sleep(delay).await,
            // Forgotten meanwhile, or never begun there.
            Ok(()) | Err(CallError::NotFound { .. }) => return true,
            Err(error) => {
                tracing::debug!(%error, "an outcome is not acknowledged");
                return false;
            }
        }
    }
    false
}

fn is_journaled(node: &PlannedNode) -> bool {
    matches!(&node.step, Step::Agent(step) if step.info().policy != Policy::Pure)
}
