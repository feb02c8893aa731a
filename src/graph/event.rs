use super::{Dispatch, NodeIndex};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Execute,
    Undo,
}

/// What an attempt left behind on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    None,
    Done,
    Unknown,
}

/// Why an attempt failed, in the words that the operator reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable identifier in UPPER_SNAKE_CASE.
    pub reason: String,
    pub message: String,
    /// From the outermost cause to the innermost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    pub next_move: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_tail: Vec<String>,
    pub effect: Effect,
}

/// What can happen to a task. The journal holds these and nothing else.
///
/// At most one event of each kind exists per subtask and attempt; decisions of an operator are bound to the task only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// Committed before the work is handed out, so a recovered coordinator asks for the same work again.
    Dispatched {
        node: NodeIndex,
        attempt: u32,
        direction: Direction,
    },
    Succeeded {
        node: NodeIndex,
        attempt: u32,
        effect: Effect,
        output: Vec<(String, String)>,
    },
    Failed {
        node: NodeIndex,
        attempt: u32,
        failure: Failure,
    },
    Undone {
        node: NodeIndex,
        attempt: u32,
    },
    UndoFailed {
        node: NodeIndex,
        attempt: u32,
        failure: Failure,
    },
    RetryRequested {
        by: String,
    },
    RollbackRequested {
        by: String,
    },
    SubtaskRetryRequested {
        node: NodeIndex,
        by: String,
    },
    SkipRequested {
        node: NodeIndex,
        by: String,
    },
    CancelRequested {
        node: NodeIndex,
        by: String,
    },
    /// Ends what runs and begins nothing more, until an operator decides otherwise.
    TaskCancelRequested {
        by: String,
    },
}

impl Event {
    /// Name of the variant, as stored.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Dispatched { direction: Direction::Execute, .. } => "dispatched",
            Self::Dispatched { direction: Direction::Undo, .. } => "undo_dispatched",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Undone { .. } => "undone",
            Self::UndoFailed { .. } => "undo_failed",
            Self::RetryRequested { .. } => "retry_requested",
            Self::RollbackRequested { .. } => "rollback_requested",
            Self::SubtaskRetryRequested { .. } => "subtask_retry_requested",
            Self::SkipRequested { .. } => "skip_requested",
            Self::CancelRequested { .. } => "cancel_requested",
            Self::TaskCancelRequested { .. } => "task_cancel_requested",
        }
    }

    /// Subtask and attempt, for the events of which there is at most one each.
    pub fn run(&self) -> Option<(NodeIndex, u32)> {
        match self {
            Self::Dispatched { node, attempt, .. }
            | Self::Succeeded { node, attempt, .. }
            | Self::Failed { node, attempt, .. }
            | Self::Undone { node, attempt }
            | Self::UndoFailed { node, attempt, .. } => Some((*node, *attempt)),
            Self::RetryRequested { .. }
            | Self::RollbackRequested { .. }
            | Self::SubtaskRetryRequested { .. }
            | Self::SkipRequested { .. }
            | Self::CancelRequested { .. }
            | Self::TaskCancelRequested { .. } => None,
        }
    }

    /// The work of which this is the outcome.
    pub fn ended(&self) -> Option<Dispatch> {
        let (node, attempt) = self.run()?;
        let direction = match self {
            Self::Succeeded { .. } | Self::Failed { .. } => Direction::Execute,
            Self::Undone { .. } | Self::UndoFailed { .. } => Direction::Undo,
            Self::Dispatched { .. }
            | Self::RetryRequested { .. }
            | Self::RollbackRequested { .. }
            | Self::SubtaskRetryRequested { .. }
            | Self::SkipRequested { .. }
            | Self::CancelRequested { .. }
            | Self::TaskCancelRequested { .. } => return None,
        };
        Some(Dispatch { node, attempt, direction })
    }
}
