use super::{Direction, Effect, Event, Failure, Graph, NodeIndex, Operation, SubtaskStatus, TaskStatus};

/// A subtask as the events left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubtaskState {
    pub status: SubtaskStatus,
    pub operation: Operation,
    /// Number of the present run, from 1 (OCP: `runTime`).
    pub attempt: u32,
    /// Work that was handed out and not answered.
    pub flight: Option<Direction>,
    /// An attempt was dispatched and not undone since, so there may be something to take back.
    pub touched: bool,
    /// What the latest attempt left behind.
    pub effect: Effect,
    pub failure: Option<Failure>,
    pub output: Vec<(String, String)>,
    undo_failed: bool,
}

impl SubtaskState {
    fn fresh() -> Self {
        Self {
            status: SubtaskStatus::Pending,
            operation: Operation::Execute,
            attempt: 1,
            flight: None,
            touched: false,
            effect: Effect::None,
            failure: None,
            output: Vec::new(),
            undo_failed: false,
        }
    }

    fn is_active(&self) -> bool {
        match self.status {
            SubtaskStatus::Running | SubtaskStatus::Canceling => true,
            SubtaskStatus::Pending | SubtaskStatus::Ready | SubtaskStatus::Failed | SubtaskStatus::Successful => false,
        }
    }
}

/// A task as the events left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskState {
    graph: Graph,
    subtasks: Vec<SubtaskState>,
    operation: Operation,
    /// An operator canceled the task: nothing begins until the next decision.
    halted: bool,
}

/// An event that the present state does not allow: a defect or a damaged journal, never a race.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {event} is not possible for {subject} in state {state}")]
pub struct IllegalTransition {
    pub event: &'static str,
    pub subject: String,
    pub state: String,
}

impl TaskState {
    pub fn new(graph: Graph) -> Self {
        let subtasks = vec![SubtaskState::fresh(); graph.len()];
        let mut state = Self { graph, subtasks, operation: Operation::Execute, halted: false };
        state.settle();
        state
    }

    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    pub fn operation(&self) -> Operation {
        self.operation
    }

    pub fn subtask(&self, index: NodeIndex) -> Option<&SubtaskState> {
        self.subtasks.get(index.at())
    }

    pub fn subtasks(&self) -> impl Iterator<Item = (NodeIndex, &SubtaskState)> {
        (0..).map(NodeIndex).zip(&self.subtasks)
    }

    /// Canceled as a whole, and not taken up again since.
    pub fn is_halted(&self) -> bool {
        self.halted
    }

    pub(super) fn any(&self, test: impl Fn(&SubtaskState) -> bool) -> bool {
        self.subtasks.iter().any(test)
    }

    /// Running while anything runs or can be started; then failed if anything failed or the task was canceled.
    pub fn status(&self) -> TaskStatus {
        let asked_for = |s: &SubtaskState| matches!(s.operation, Operation::Retry | Operation::Rollback);
        let startable = |s: &SubtaskState| s.status == SubtaskStatus::Ready && asked_for(s) && !self.halted;
        if self.any(|s| s.is_active() || startable(s)) {
            return TaskStatus::Running;
        }
        let (failed, done) = match self.operation {
            Operation::Rollback => (self.any(|s| s.undo_failed), SubtaskStatus::Pending),
            Operation::Execute | Operation::Retry | Operation::Skip | Operation::Cancel => {
                (self.any(|s| s.status == SubtaskStatus::Failed), SubtaskStatus::Successful)
            }
        };
        if failed {
            TaskStatus::Failed
        } else if self.subtasks.iter().all(|s| s.status == done) {
            TaskStatus::Successful
        } else if self.halted {
            TaskStatus::Failed
        } else {
            TaskStatus::Running
        }
    }

    /// The one transition function.
    pub fn apply(&mut self, event: &Event) -> Result<(), IllegalTransition> {
        use SubtaskStatus::{Canceling, Failed, Ready, Running, Successful};
        match event {
            Event::Dispatched { node, attempt, direction } => {
                let allowed = |s: &SubtaskState| {
                    s.attempt == *attempt
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
                    Operation::Retry => subtask.status = Failed,
                    Operation::Rollback | Operation::Execute | Operation::Skip | Operation::Cancel => {
                        subtask.status = SubtaskStatus::Pending;
                    }
                }
            }
            Event::UndoFailed { node, attempt, failure } => {
                let subtask = self.expect_flight(event, *node, *attempt, Direction::Undo)?;
                subtask.status = Failed;
                subtask.flight = None;
                subtask.undo_failed = subtask.operation == Operation::Rollback;
                subtask.failure = Some(failure.clone());
            }
            Event::RetryRequested { .. } => {
                self.expect_task(event, |task| {
                    task.status() == TaskStatus::Failed && task.operation != Operation::Rollback
                })?;
                self.operation = Operation::Retry;
                self.halted = false;
                self.subtasks.iter_mut().filter(|s| s.status == Failed).for_each(begin_retry);
            }
            Event::RollbackRequested { .. } => {
                self.expect_task(event, |task| task.status() == TaskStatus::Failed && !task.prohibits_rollback())?;
                self.operation = Operation::Rollback;
                self.halted = false;
                for subtask in self.subtasks.iter_mut().filter(|s| s.status != SubtaskStatus::Pending) {
                    if subtask.operation != Operation::Rollback || subtask.undo_failed {
                        subtask.attempt += u32::from(subtask.touched);
                    }
                    subtask.operation = Operation::Rollback;
                    subtask.undo_failed = false;
                }
            }
            Event::SubtaskRetryRequested { node, .. } => {
                let rolling_back = self.operation == Operation::Rollback;
                let subtask = self.expect_subtask(event, *node, |s| s.status == Failed && !rolling_back)?;
                begin_retry(subtask);
                self.resume();
            }
            Event::SkipRequested { node, .. } => {
                let rolling_back = self.operation == Operation::Rollback;
                let subtask =
                    self.expect_subtask(event, *node, |s| s.status == Failed && (s.undo_failed || !rolling_back))?;
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
                cancel(self.expect_subtask(event, *node, |s| s.status == Running)?);
            }
            Event::TaskCancelRequested { .. } => {
                self.expect_task(event, |task| task.status() == TaskStatus::Running && !task.halted)?;
                self.halted = true;
                if self.operation != Operation::Rollback {
                    self.operation = Operation::Cancel;
                }
                self.subtasks.iter_mut().filter(|s| s.status == Running).for_each(cancel);
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

    pub(super) fn prohibits_rollback(&self) -> bool {
        self.graph.nodes().zip(&self.subtasks).any(|((_, node), s)| node.prohibit_rollback && s.touched)
    }

    /// Moves on what needs no event: PENDING to READY going forward, READY or PENDING going backward.
    fn settle(&mut self) {
        match self.operation {
            Operation::Rollback => self.settle_backward(),
            Operation::Execute | Operation::Retry | Operation::Skip | Operation::Cancel => self.settle_forward(),
        }
    }

    fn settle_forward(&mut self) {
        let successful: Vec<bool> = self.subtasks.iter().map(|s| s.status == SubtaskStatus::Successful).collect();
        let is_successful = |index: &NodeIndex| successful.get(index.at()).copied().unwrap_or(false);
        for ((_, node), subtask) in self.graph.nodes().zip(&mut self.subtasks) {
            if subtask.status == SubtaskStatus::Pending && node.upstreams.iter().all(is_successful) {
                subtask.status = SubtaskStatus::Ready;
            }
        }
    }

    fn settle_backward(&mut self) {
        // Untouched nodes fall back to PENDING at once and may free their upstreams, so repeat until nothing moves.
        loop {
            let pending: Vec<bool> = self.subtasks.iter().map(|s| s.status == SubtaskStatus::Pending).collect();
            let mut moved = false;
            for ((index, _), subtask) in self.graph.nodes().zip(&mut self.subtasks) {
                let mut downstreams = self.graph.downstreams(index).iter();
                let free = downstreams.all(|d| pending.get(d.at()).copied().unwrap_or(false));
                let waits = match subtask.status {
                    SubtaskStatus::Successful | SubtaskStatus::Failed => !subtask.undo_failed,
                    SubtaskStatus::Ready => !subtask.touched,
                    SubtaskStatus::Pending | SubtaskStatus::Running | SubtaskStatus::Canceling => false,
                };
                if free && waits {
                    subtask.status = if subtask.touched { SubtaskStatus::Ready } else { SubtaskStatus::Pending };
                    moved |= !subtask.touched;
                }
            }
            if !moved {
                return;
            }
        }
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
            Some(subtask) if allowed(subtask) => Ok(subtask),
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

fn cancel(subtask: &mut SubtaskState) {
    if subtask.flight.is_some() {
        subtask.status = SubtaskStatus::Canceling;
    } else {
        // Between the undo and the execution of a retry nothing runs that could end it.
        subtask.status = SubtaskStatus::Failed;
        subtask.operation = Operation::Cancel;
    }
}

fn begin_retry(subtask: &mut SubtaskState) {
    subtask.status = SubtaskStatus::Ready;
    subtask.operation = Operation::Retry;
    subtask.attempt += 1;
}
