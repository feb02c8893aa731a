use super::{Event, NodeIndex, Operation, SubtaskStatus, TaskState, TaskStatus};

/// What an operator can ask of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Retry,
    Rollback,
    Cancel,
    RetrySubtask(NodeIndex),
    SkipSubtask(NodeIndex),
    CancelSubtask(NodeIndex),
}

/// Why a command was refused; names the state that was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the task is {operation} {status}; only a FAILED task that is not being rolled back can be retried")]
    RetryState { operation: Operation, status: TaskStatus },
    #[error("the task is {operation} {status}; only a FAILED task can be rolled back")]
    RollbackState { operation: Operation, status: TaskStatus },
    #[error("the task is {operation} {status}; only a RUNNING task that is not being canceled already can be canceled")]
    CancelState { operation: Operation, status: TaskStatus },
    #[error("the task has a step that cannot be undone")]
    RollbackProhibited,
    #[error("the task has no such subtask")]
    NoSuchSubtask,
    #[error("the subtask is {operation} {status}; {rule}")]
    SubtaskState { operation: Operation, status: SubtaskStatus, rule: &'static str },
}

impl TaskState {
    /// The event that carries out `command`, if the present state allows it (preconditions of OCP's engine).
    pub fn decide(&self, command: Command, by: &str) -> Result<Event, Refusal> {
        let by = by.to_owned();
        let (operation, status) = (self.operation(), self.status());
        match command {
            Command::Retry if status == TaskStatus::Failed && operation != Operation::Rollback => {
                Ok(Event::RetryRequested { by })
            }
            Command::Retry => Err(Refusal::RetryState { operation, status }),
            Command::Rollback if status != TaskStatus::Failed => Err(Refusal::RollbackState { operation, status }),
            Command::Rollback if self.prohibits_rollback() => Err(Refusal::RollbackProhibited),
            Command::Rollback => Ok(Event::RollbackRequested { by }),
            Command::Cancel if status == TaskStatus::Running && !self.is_halted() => {
                Ok(Event::TaskCancelRequested { by })
            }
            Command::Cancel => Err(Refusal::CancelState { operation, status }),
            Command::RetrySubtask(node) => {
                let rule =
                    "only a FAILED subtask can be retried, and none while the task is rolled back or being canceled";
                self.check(node, Event::SubtaskRetryRequested { node, by }, rule)
            }
            Command::SkipSubtask(node) => {
                let rule = "only a FAILED subtask can be skipped, and none while the task is being canceled";
                self.check(node, Event::SkipRequested { node, by }, rule)
            }
            Command::CancelSubtask(node) => {
                self.check(node, Event::CancelRequested { node, by }, "only a RUNNING subtask can be canceled")
            }
        }
    }

    /// Asks the transition function itself, so that the two can never disagree.
    fn check(&self, node: NodeIndex, event: Event, rule: &'static str) -> Result<Event, Refusal> {
        let subtask = self.subtask(node).ok_or(Refusal::NoSuchSubtask)?;
        match self.clone().apply(&event) {
            Ok(()) => Ok(event),
            Err(_) => Err(Refusal::SubtaskState { operation: subtask.operation, status: subtask.status, rule }),
        }
    }
}
