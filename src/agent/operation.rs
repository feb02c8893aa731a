//! What the journal, the runner and the service say to each other about an operation.

use crate::{
    graph::{Direction, Effect, Failure},
    steps::AgentStep,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// Names one run of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub operation_id: Uuid,
    pub attempt: u32,
}

impl Key {
    /// Unique and usable in file names.
    pub fn run_id(&self) -> String {
        format!("{}-{}", self.operation_id, self.attempt)
    }

    /// Reads the key back out of a name that begins with its [`Key::run_id`].
    pub fn of_run(name: &str) -> Option<Self> {
        let (operation_id, rest) = name.split_at_checked(uuid::fmt::Hyphenated::LENGTH)?;
        let attempt = rest.strip_prefix('-')?.split(['-', '.']).next()?;
        Some(Self { operation_id: operation_id.parse().ok()?, attempt: attempt.parse().ok()? })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation {} attempt {}", self.operation_id, self.attempt)
    }
}

/// Life of an operation. The numbers are those of the journal and of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Accepted = 1,
    Starting = 2,
    Running = 3,
    Finished = 4,
    Acknowledged = 5,
}

impl Phase {
    pub fn from_number(number: i64) -> Option<Self> {
        [Self::Accepted, Self::Starting, Self::Running, Self::Finished, Self::Acknowledged]
            .into_iter()
            .find(|phase| *phase as i64 == number)
    }

    pub fn is_over(self) -> bool {
        self >= Self::Finished
    }
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    Succeeded {
        effect: Effect,
        output: Vec<(String, String)>,
    },
    Failed(Failure),
    Canceled(Failure),
    /// The agent or the host died and the effect could not be established.
    Interrupted(Failure),
}

impl Outcome {
    pub fn effect(&self) -> Effect {
        match self {
            Self::Succeeded { effect, .. } => *effect,
            Self::Failed(failure) | Self::Canceled(failure) | Self::Interrupted(failure) => failure.effect,
        }
    }

    /// A cancellation that was faster than the operation itself.
    pub fn canceled_unseen() -> Self {
        Self::Canceled(Failure {
            reason: "CANCELED".into(),
            message: "the operation was canceled before it reached the agent".into(),
            causes: Vec::new(),
            next_move: "retry the subtask when you are ready".into(),
            exit_code: None,
            signal: None,
            log_tail: Vec::new(),
            effect: Effect::None,
        })
    }

    /// An outcome of which nobody saw the end.
    pub fn interrupted(reason: &str, message: impl Into<String>) -> Self {
        Self::Interrupted(Failure {
            reason: reason.into(),
            message: message.into(),
            causes: Vec::new(),
            next_move: "look at the host, then retry or roll back the subtask".into(),
            exit_code: None,
            signal: None,
            log_tail: Vec::new(),
            effect: Effect::Unknown,
        })
    }
}

/// A phase that an operation reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseEvent {
    pub sequence: u64,
    pub phase: Phase,
    pub time_us: i64,
}

/// What a caller may see of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Position in the journal; grows in the order of acceptance.
    pub position: i64,
    pub key: Key,
    pub epoch: u64,
    pub step_kind: String,
    pub direction: Direction,
    pub phase: Phase,
    pub sequence: u64,
    pub accept_us: i64,
    pub finish_us: Option<i64>,
    pub outcome: Option<Outcome>,
}

/// What an undo takes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UndoTarget {
    pub operation_id: Uuid,
    /// As far as the coordinator knows it; counts where the journal knows nothing.
    pub effect: Effect,
}

/// An operation to be carried out.
#[derive(Debug, Clone)]
pub struct Order {
    pub key: Key,
    pub epoch: u64,
    pub fingerprint: String,
    pub step: AgentStep,
    /// Present: the step is taken back.
    pub undoes: Option<UndoTarget>,
    pub secrets: super::step::Secrets,
    pub timeout: Option<std::time::Duration>,
}

impl Order {
    pub fn direction(&self) -> Direction {
        if self.undoes.is_some() { Direction::Undo } else { Direction::Execute }
    }
}

pub use crate::clock::now_micros as now_us;
