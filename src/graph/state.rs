use super::{Direction, Effect, Failure, Graph, NodeIndex, Operation, SubtaskStatus, TaskStatus};
use std::sync::Arc;

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
    pub(super) undo_failed: bool,
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

    pub(super) fn is_active(&self) -> bool {
        match self.status {
            SubtaskStatus::Running | SubtaskStatus::Canceling => true,
            SubtaskStatus::Pending | SubtaskStatus::Ready | SubtaskStatus::Failed | SubtaskStatus::Successful => false,
        }
    }
}

/// A task as the events left it.
///
/// A copy is cheap: the graph and the subtasks are shared until they differ, because the state is copied at every append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskState {
    pub(super) graph: Arc<Graph>,
    pub(super) subtasks: Vec<Arc<SubtaskState>>,
    pub(super) operation: Operation,
    /// An operator canceled the task: nothing begins until the next decision.
    pub(super) halted: bool,
}

impl TaskState {
    pub fn new(graph: impl Into<Arc<Graph>>) -> Self {
        let graph = graph.into();
        let fresh = Arc::new(SubtaskState::fresh());
        let subtasks = vec![fresh; graph.len()];
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
        self.subtasks.get(index.at()).map(Arc::as_ref)
    }

    pub fn subtasks(&self) -> impl Iterator<Item = (NodeIndex, &SubtaskState)> {
        (0..).map(NodeIndex).zip(self.subtasks.iter().map(Arc::as_ref))
    }

    /// Canceled as a whole, and not taken up again since.
    pub fn is_halted(&self) -> bool {
        self.halted
    }

    pub(super) fn any(&self, test: impl Fn(&SubtaskState) -> bool) -> bool {
        self.subtasks.iter().any(|subtask| test(subtask))
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

    pub(super) fn prohibits_rollback(&self) -> bool {
        self.graph.nodes().zip(&self.subtasks).any(|((_, node), s)| node.prohibit_rollback && s.touched)
    }
}
