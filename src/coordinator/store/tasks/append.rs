use super::TaskId;
use crate::graph::{
    Event, Failure, IllegalTransition, NodeIndex, Operation, SubtaskState, SubtaskStatus, TaskState, TaskStatus,
};
use std::collections::HashMap;

/// Events of one task that become true together, with the rows that follow from them.
#[derive(Debug, Clone)]
pub struct Append {
    pub task: TaskId,
    pub epoch: i64,
    /// Sequence number of the first event.
    pub sequence: i64,
    pub events: Vec<Event>,
    pub at: i64,
    pub status: TaskStatus,
    pub operation: Operation,
    pub subtasks: Vec<SubtaskChange>,
}

/// A subtask that the events moved.
#[derive(Debug, Clone)]
pub struct SubtaskChange {
    pub node: NodeIndex,
    pub status: SubtaskStatus,
    pub operation: Operation,
    pub attempt: u32,
    pub failure: Option<Failure>,
    pub clock: Clock,
}

/// What the events say of the times of a subtask: a start begins a run that has no end, an end ends it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Clock {
    pub started: bool,
    pub ended: bool,
}

/// Events on their way into an [`Append`]: each is applied at once, so that the next can be chosen by the new state.
pub struct Draft {
    before: Vec<Shown>,
    events: Vec<Event>,
}

/// What a row shows of a subtask and most events do not touch.
type Shown = (SubtaskStatus, Operation, u32);

fn shown(subtask: &SubtaskState) -> Shown {
    (subtask.status, subtask.operation, subtask.attempt)
}

impl Draft {
    pub fn new(state: &TaskState) -> Self {
        Self { before: state.subtasks().map(|(_, subtask)| shown(subtask)).collect(), events: Vec::new() }
    }

    pub fn apply(&mut self, state: &mut TaskState, event: Event) -> Result<(), IllegalTransition> {
        state.apply(&event)?;
        self.events.push(event);
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Notes what the events moved. One event can move many subtasks: a join becomes READY, a rollback turns the whole
    /// graph.
    pub fn finish(self, (task, epoch, sequence): (TaskId, i64, i64), state: &TaskState, at: i64) -> Append {
        let mut clocks = HashMap::<NodeIndex, Clock>::new();
        for event in &self.events {
            if let Some((node, _)) = event.run() {
                let clock = clocks.entry(node).or_default();
                let started = matches!(event, Event::Dispatched { .. });
                *clock = Clock { started: clock.started || started, ended: !started };
            }
        }
        let moved = state.subtasks().zip(&self.before).filter_map(|((node, subtask), before)| {
            let clock = clocks.get(&node).copied();
            (clock.is_some() || shown(subtask) != *before).then(|| SubtaskChange {
                node,
                status: subtask.status,
                operation: subtask.operation,
                attempt: subtask.attempt,
                failure: subtask.failure.clone(),
                clock: clock.unwrap_or_default(),
            })
        });
        let subtasks = moved.collect();
        let (status, operation) = (state.status(), state.operation());
        Append { task, epoch, sequence, at, status, operation, subtasks, events: self.events }
    }
}

impl Append {
    /// Sequence number of the first event that comes after these.
    pub fn next_sequence(&self) -> i64 {
        self.sequence.saturating_add(i64::try_from(self.events.len()).unwrap_or(i64::MAX))
    }
}
