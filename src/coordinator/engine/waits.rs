//! What running subtasks wait for: told to operators, and forgotten with the program, because it is found out again.

use super::turns::Flying;
use crate::{coordinator::store::task::TaskId, graph::NodeIndex};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// What a subtask waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Completes "waits for".
    pub what: String,
    /// When it gives up, in microseconds since 1970.
    pub until: i64,
}

#[derive(Default)]
pub(super) struct Waits(Mutex<HashMap<TaskId, HashMap<NodeIndex, Wait>>>);

impl Waits {
    pub(super) fn of(&self, id: TaskId) -> HashMap<NodeIndex, Wait> {
        self.lock().get(&id).cloned().unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TaskId, HashMap<NodeIndex, Wait>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one subtask; what it waits for is forgotten with it.
pub struct WaitPlace {
    waits: Arc<Waits>,
    task: TaskId,
    node: NodeIndex,
    until: i64,
    flying: Arc<Flying>,
}

impl WaitPlace {
    pub(super) fn new(waits: Arc<Waits>, task: TaskId, node: NodeIndex, until: i64, flying: Arc<Flying>) -> Self {
        Self { waits, task, node, until, flying }
    }

    /// Its host does not answer, so the task lets others have its turn until [`Self::goes_on`].
    pub fn is_silent(&self) {
        self.flying.silent(true);
    }

    pub fn waits_for(&self, what: impl Into<String>) {
        self.waits_until(self.until, what);
    }

    pub fn waits_until(&self, until: i64, what: impl Into<String>) {
        let wait = Wait { what: what.into(), until };
        self.waits.lock().entry(self.task).or_default().insert(self.node, wait);
    }

    pub fn goes_on(&self) {
        self.flying.silent(false);
        let mut waits = self.waits.lock();
        if let Some(nodes) = waits.get_mut(&self.task) {
            nodes.remove(&self.node);
            if nodes.is_empty() {
                waits.remove(&self.task);
            }
        }
    }
}

impl Drop for WaitPlace {
    fn drop(&mut self) {
        self.goes_on();
    }
}
