//! The one transition function: what each event does to the state, and when it is possible.

use super::{Direction, Effect, Event, NodeIndex, Operation, SubtaskState, SubtaskStatus, TaskState, TaskStatus};
use std::sync::Arc;

/// An event that the present state does not allow: a defect or a damaged journal, never a race.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {event} is not possible for {subject} in state {state}")]
pub struct IllegalTransition {
    pub event: &'static str,
    pub subject: String,
    pub state: String,
}

impl TaskState {
    /// The one transition function.
    pub fn apply(&mut self, event: &Event) -> Result<(), IllegalTransition> {
        use SubtaskStatus::{Canceling, Failed, Ready, Running, Successful};
        match event {
            Event::Dispatched { node, attempt, direction } => {
                let halted = self.halted;
                let allowed = |s: &SubtaskState| {
                    !halted
                        && s.attempt == *attempt
                        && match direction {
                            Direction::Execute => {
                                (s.status == Ready || (s.status == Running && s.flight.is_none()))
                                    && !s.touched
                                    && s.operation != Operation::Rollback
                            }
                            Direction::Undo => {
                                s.status == Ready
                                    && s.touched
                                    && matches!(s.operation, Operation::Retry | Operation::Rollback)
                            }
                        }
                };
                let subtask = self.expect_subtask(event, *node, allowed)?;
                subtask.status = Running;
                subtask.flight = Some(*direction);
                subtask.touched = true;
                if *direction == Direction::Execute {
                    subtask.effect = Effect::Unknown;
                    subtask.failure = None;
                }
            }
            Event::Succeeded { node, attempt, effect, output } => {
                let subtask = self.expect_flight(event, *node, *attempt, Direction::Execute)?;
                subtask.status = Successful;
                subtask.flight = None;
                subtask.effect = *effect;
                subtask.output.clone_from(output);
            }
            Event::Failed { node, attempt, failure } => {
                let subtask = self.expect_flight(event, *node, *attempt, Direction::Execute)?;
                if subtask.status == Canceling {
                    subtask.operation = Operation::Cancel;
                }
                subtask.status = Failed;
                subtask.flight = None;
                subtask.effect = failure.effect;
                subtask.failure = Some(failure.clone());
            }
            Event::Undone { node, attempt } => {
                let subtask = self.expect_flight(event, *node, *attempt, Direction::Undo)?;
                subtask.flight = None;
                subtask.touched = false;
                subtask.effect = Effect::None;
                subtask.output.clear();
                match subtask.operation {
                    // A retry goes on with the execution; unless it was canceled in between.
                    Operation::Retry if subtask.status == Running => {}
                    Operation::Retry => end_by_cancel(subtask),
                    Operation::Rollback | Operation::Execute | Operation::Skip | Operation::Cancel => {
                        subtask.status = SubtaskStatus::Pending;
                    }
                }
            }
            Event::UndoFailed { node, attempt, failure } => {
                let subtask = self.expect_flight(event, *node, *attempt, Direction::Undo)?;
                subtask.undo_failed = subtask.operation == Operation::Rollback;
                if subtask.status == Canceling && !subtask.undo_failed {
                    subtask.operation = Operation::Cancel;
                }
                subtask.status = Failed;
                subtask.flight = None;
                subtask.failure = Some(failure.clone());
            }
            Event::RetryRequested { .. } => {
                self.expect_task(event, |task| {
                    task.status() == TaskStatus::Failed && task.operation != Operation::Rollback
                })?;
                self.operation = Operation::Retry;
                self.halted = false;
                self.change(|s| s.status == Failed, begin_retry);
            }
            Event::RollbackRequested { .. } => {
                self.expect_task(event, |task| task.status() == TaskStatus::Failed && !task.prohibits_rollback())?;
                self.operation = Operation::Rollback;
                self.halted = false;
                self.change(|s| s.status != SubtaskStatus::Pending, begin_rollback);
            }
            Event::SubtaskRetryRequested { node, .. } => {
                let open = self.operation != Operation::Rollback && !self.is_ending();
                let subtask = self.expect_subtask(event, *node, |s| s.status == Failed && open)?;
                begin_retry(subtask);
                self.resume();
            }
            Event::SkipRequested { node, .. } => {
                let (rolling_back, ending) = (self.operation == Operation::Rollback, self.is_ending());
                let allowed = |s: &SubtaskState| s.status == Failed && !ending && (s.undo_failed || !rolling_back);
                let subtask = self.expect_subtask(event, *node, allowed)?;
                if rolling_back {
                    subtask.status = SubtaskStatus::Pending;
                    subtask.touched = false;
                    subtask.undo_failed = false;
                } else {
                    subtask.status = Successful;
                }
                subtask.operation = Operation::Skip;
                self.resume();
            }
            Event::CancelRequested { node, .. } => {
                begin_cancel(self.expect_subtask(event, *node, |s| s.status == Running)?);
            }
            Event::TaskCancelRequested { .. } => {
                self.expect_task(event, |task| task.status() == TaskStatus::Running && !task.halted)?;
                self.halted = true;
                if self.operation != Operation::Rollback {
                    self.operation = Operation::Cancel;
                }
                // What waits to be retried falls back to FAILED, so that each can be decided upon by itself.
                let waits = |s: &SubtaskState| s.status == Ready && s.operation == Operation::Retry;
                self.change(|s| s.status == Running || waits(s), begin_cancel);
            }
        }
        self.settle();
        Ok(())
    }

    /// A decision about one subtask takes a canceled task up again.
    fn resume(&mut self) {
        self.halted = false;
        if self.operation == Operation::Cancel {
            self.operation = Operation::Retry;
        }
    }

    /// Canceled, and what ran has not ended yet: a decision upon it would be one upon an unknown state.
    fn is_ending(&self) -> bool {
        self.halted && self.any(SubtaskState::is_active)
    }

    fn change(&mut self, concerned: impl Fn(&SubtaskState) -> bool, change: impl Fn(&mut SubtaskState)) {
        let concerned = self.subtasks.iter_mut().filter(|subtask| concerned(subtask));
        concerned.map(Arc::make_mut).for_each(change);
    }

    /// Moves on what needs no event: PENDING to READY going forward, READY or PENDING going backward.
    pub(super) fn settle(&mut self) {
        match self.operation {
            Operation::Rollback => self.settle_backward(),
            Operation::Execute | Operation::Retry | Operation::Skip | Operation::Cancel => self.settle_forward(),
        }
    }

    fn settle_forward(&mut self) {
        for (index, node) in self.graph.nodes() {
            let waits = self.is(index, SubtaskStatus::Pending);
            if waits && node.upstreams.iter().all(|u| self.is(*u, SubtaskStatus::Successful)) {
                set_status(&mut self.subtasks, index, SubtaskStatus::Ready);
            }
        }
    }

    /// One pass in reverse order: an untouched subtask falls back to PENDING at once and may free those before it.
    fn settle_backward(&mut self) {
        for index in self.graph.topological_order().iter().rev().copied() {
            let Some(subtask) = self.subtask(index) else { continue };
            let waits = match subtask.status {
                SubtaskStatus::Successful | SubtaskStatus::Failed => !subtask.undo_failed,
                SubtaskStatus::Ready => !subtask.touched,
                SubtaskStatus::Pending | SubtaskStatus::Running | SubtaskStatus::Canceling => false,
            };
            let status = if subtask.touched { SubtaskStatus::Ready } else { SubtaskStatus::Pending };
            let mut downstreams = self.graph.downstreams(index).iter();
            if waits && downstreams.all(|d| self.is(*d, SubtaskStatus::Pending)) {
                set_status(&mut self.subtasks, index, status);
            }
        }
    }

    fn is(&self, index: NodeIndex, status: SubtaskStatus) -> bool {
        self.subtask(index).is_some_and(|subtask| subtask.status == status)
    }

    fn expect_flight(
        &mut self,
        event: &Event,
        node: NodeIndex,
        attempt: u32,
        direction: Direction,
    ) -> Result<&mut SubtaskState, IllegalTransition> {
        self.expect_subtask(event, node, |s| s.is_active() && s.flight == Some(direction) && s.attempt == attempt)
    }

    fn expect_subtask(
        &mut self,
        event: &Event,
        node: NodeIndex,
        allowed: impl Fn(&SubtaskState) -> bool,
    ) -> Result<&mut SubtaskState, IllegalTransition> {
        let illegal =
            |state: String| IllegalTransition { event: event.kind(), subject: format!("subtask {node}"), state };
        match self.subtasks.get_mut(node.at()) {
            None => Err(illegal("absent".into())),
            Some(subtask) if allowed(subtask) => Ok(Arc::make_mut(subtask)),
            Some(subtask) => {
                Err(illegal(format!("{} {} attempt {}", subtask.operation, subtask.status, subtask.attempt)))
            }
        }
    }

    fn expect_task(&self, event: &Event, allowed: impl Fn(&Self) -> bool) -> Result<(), IllegalTransition> {
        if allowed(self) {
            return Ok(());
        }
        let state = format!("{} {}", self.operation, self.status());
        Err(IllegalTransition { event: event.kind(), subject: "the task".into(), state })
    }
}

fn set_status(subtasks: &mut [Arc<SubtaskState>], index: NodeIndex, status: SubtaskStatus) {
    if let Some(subtask) = subtasks.get_mut(index.at()) {
        Arc::make_mut(subtask).status = status;
    }
}

fn begin_cancel(subtask: &mut SubtaskState) {
    if subtask.flight.is_some() {
        subtask.status = SubtaskStatus::Canceling;
    } else {
        // Before the undo of a retry, or between it and the execution, nothing runs that could end it.
        end_by_cancel(subtask);
    }
}

fn end_by_cancel(subtask: &mut SubtaskState) {
    subtask.status = SubtaskStatus::Failed;
    subtask.operation = Operation::Cancel;
}

fn begin_retry(subtask: &mut SubtaskState) {
    subtask.status = SubtaskStatus::Ready;
    subtask.operation = Operation::Retry;
    subtask.attempt += 1;
}

/// What a canceled rollback had not handed out yet keeps its attempt.
fn begin_rollback(subtask: &mut SubtaskState) {
    if subtask.operation != Operation::Rollback || subtask.undo_failed {
        subtask.attempt += u32::from(subtask.touched);
    }
    subtask.operation = Operation::Rollback;
    subtask.undo_failed = false;
}
