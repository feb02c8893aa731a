//! Tells agents that outcomes are safe, so that they may forget them (window W5).
//!
//! An agent hears of them when its task comes to rest, or when many have gathered: one call, and one sync of its journal, for
//! all of them. Until then it keeps records that it would not need any more, which costs it some rows.
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
/// As many as one call takes.
const MOST_GATHERED: usize = 256;

/// By host.
type Keys = BTreeMap<Option<i64>, Vec<v1::OperationKey>>;

pub(super) struct Acknowledgements {
    agents: Arc<Agents>,
    plan: Arc<TaskPlan>,
    /// Not on their way yet.
    gathered: Keys,
    under_way: JoinSet<bool>,
    all_through: bool,
    /// It was tried before, so hosts that did not answer then are left in peace for a while.
    again: bool,
}

impl Acknowledgements {
    pub(super) fn new(agents: Arc<Agents>, plan: Arc<TaskPlan>) -> Self {
        Self { agents, plan, gathered: Keys::new(), under_way: JoinSet::new(), all_through: true, again: false }
    }

    /// Takes note of outcomes that are committed.
    pub(super) fn gather(&mut self, ended: &[Dispatch]) {
        for dispatch in ended {
            let Some(node) = self.plan.node(dispatch.node).filter(|node| is_journaled(node)) else { continue };
            let keys = self.gathered.entry(node.host_id).or_default();
            keys.push(operation_key(node, *dispatch));
            if keys.len() == MOST_GATHERED {
                let full = Keys::from([(node.host_id, std::mem::take(keys))]);
                self.send(full);
            }
        }
    }

    fn send(&mut self, keys: Keys) {
        while let Some(through) = self.under_way.try_join_next() {
            self.all_through &= through.unwrap_or(false);
        }
        self.under_way.spawn(acknowledge(Arc::clone(&self.agents), keys, self.again));
    }

    /// What is left to do about a task at rest whose events are those before `next_sequence`.
    pub(super) fn left(mut self, shared: Arc<Shared>, task: TaskId, next_sequence: i64) -> Unfinished {
        let rest = std::mem::take(&mut self.gathered);
        if !rest.is_empty() {
            self.send(rest);
        }
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
    acknowledgements.gather(&ended);
    acknowledgements.left(Arc::clone(shared), task, next_sequence).finish().await;
}

/// Answers whether the agents know of all of them. Hosts are told beside each other, so that one that is gone holds up no
/// other; one whose agent cannot be told is asked no further: the rest would wait for the same silence, and all are told
/// again later.
async fn acknowledge(agents: Arc<Agents>, keys: Keys, again: bool) -> bool {
    let tell = async |(host, keys)| tell_host(&agents, host, keys, again).await;
    stream::iter(keys).map(tell).buffer_unordered(HOSTS_AT_A_TIME).fold(true, async |all, through| all && through).await
}

async fn tell_host(agents: &Agents, host_id: Option<i64>, keys: Vec<v1::OperationKey>, again: bool) -> bool {
    let host = host_id.unwrap_or(0);
    if again && agents.quiet().rests(&host) {
        return false;
    }
    let through = told(agents, host_id, &keys, if again { 1 } else { TRIES }).await;
    if through {
        agents.quiet().answered(&host);
    } else {
        agents.quiet().did_not_answer(host);
    }
    through
}

async fn told(agents: &Agents, host_id: Option<i64>, keys: &[v1::OperationKey], tries: usize) -> bool {
    let agent = match agents.of(host_id).await {
        Ok(agent) => agent,
        // Forgotten together with its agent.
        Err(PreparationError::NoHost(_)) => return true,
        Err(_) => return false,
    };
    for delay in backoff().take(tries) {
        match agent.acknowledge(keys, agents.epoch()).await {
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
