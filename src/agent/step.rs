//! The seam between the journal, which makes steps durable, and the host, which carries them out.
//!
//! How a step survives a crash of the agent:
//!  1. Before a step creates anything that outlives the agent (a process, a package), it chooses an identity and calls
//!     [`StepContext::choose_identity`], which returns after the identity is on disk.
//!  2. After a restart the same step is carried out again with [`StepContext::identity`] set. It looks the identity up:
//!     found means adopt, not found means begin.
//!  3. What a step made is told by [`Done::effect`]; undo is handed the identity and effect of what it takes back.

use crate::graph::Effect;
use futures_util::future::BoxFuture;
use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// Keeps the identity that a step chose. Implemented by the journal.
pub trait IdentityStore: Send + Sync {
    /// Returns once the identity is synced to disk (phase STARTING).
    fn choose(&self, identity: String) -> BoxFuture<'_, std::io::Result<()>>;
    /// Returns once it is on disk that the effect has begun (phase RUNNING).
    fn confirm(&self) -> BoxFuture<'_, std::io::Result<()>>;
}

/// Secrets of one step; shown by name only.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<String, Zeroizing<String>>);

impl Secrets {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, Zeroizing<String>)> for Secrets {
    fn from_iter<I: IntoIterator<Item = (String, Zeroizing<String>)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The log of one attempt: a file that child processes append to as well.
pub trait StepLog: Send + Sync {
    /// Appends a line; never fails, a full disk must not change the outcome of a step.
    fn line(&self, text: &str);
    /// The file, for `O_APPEND` by a child. None for a check, whose log is kept in memory.
    fn path(&self) -> Option<PathBuf>;
    /// The last lines, at most `count`.
    fn tail(&self, count: usize) -> Vec<String>;
}

/// What a step is given while it is carried out.
#[derive(Clone)]
pub struct StepContext {
    /// Unique per operation and attempt, usable in file names.
    pub run_id: String,
    pub log: Arc<dyn StepLog>,
    /// The step stops what it started, waits until it is gone and returns [`StepError`] with reason CANCELED.
    pub cancel: CancellationToken,
    pub secrets: Secrets,
    pub timeout: Option<Duration>,
    /// Chosen by this attempt before the agent was restarted.
    pub identity: Option<String>,
    pub identities: Arc<dyn IdentityStore>,
}

impl StepContext {
    pub async fn choose_identity(&self, identity: String) -> Result<(), StepError> {
        self.identities.choose(identity).await.map_err(StepError::journal)
    }

    /// To be called once the effect has begun: an error says so.
    pub async fn confirm_identity(&self) -> Result<(), StepError> {
        self.identities.confirm().await.map_err(|error| StepError::journal(error).leaving(Effect::Unknown))
    }
}

/// One attempt of the operation that an undo takes back.
#[derive(Debug, Clone)]
pub struct Undoes {
    pub identity: Option<String>,
    pub effect: Effect,
}

/// A step that reached its aim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// `None`: it was so already. `Done`: this operation made it so.
    pub effect: Effect,
    pub output: Vec<(String, String)>,
}

impl Done {
    pub fn already() -> Self {
        Self { effect: Effect::None, output: Vec::new() }
    }

    pub fn made() -> Self {
        Self { effect: Effect::Done, output: Vec::new() }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.output.push((name.into(), value.to_string()));
        self
    }
}

/// A step that did not reach its aim.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    /// Stable identifier in UPPER_SNAKE_CASE.
    pub reason: &'static str,
    pub message: String,
    pub next_move: String,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    /// What is left on the host.
    pub effect: Effect,
    /// The step has said so itself, by [`StepError::leaving`], because it has looked or has stopped what it began. Once an
    /// identity was chosen, a [`Effect::None`] that nobody has said counts as unknown.
    pub is_said: bool,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StepError {
    /// An error that left nothing behind, unless an identity was chosen before it.
    pub fn new(reason: &'static str, message: impl Into<String>, next_move: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            next_move: next_move.into(),
            exit_code: None,
            signal: None,
            effect: Effect::None,
            is_said: false,
            source: None,
        }
    }

    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub fn leaving(mut self, effect: Effect) -> Self {
        (self.effect, self.is_said) = (effect, true);
        self
    }

    /// Leaves `effect`, if nothing was said of it yet.
    pub fn else_leaving(self, effect: Effect) -> Self {
        if self.is_said { self } else { self.leaving(effect) }
    }

    pub fn canceled(what: &str) -> Self {
        Self::new("CANCELED", format!("{what} was canceled"), "retry the subtask when you are ready")
    }

    fn journal(error: std::io::Error) -> Self {
        Self::new(
            "JOURNAL",
            "the agent's journal could not be written",
            "free space in the agent's state directory, then retry",
        )
        .because(error)
    }
}

/// Carries out steps on a host. The real one is `agent::host`; tests bring a simulated one.
pub trait Carrier: Send + Sync {
    fn execute<'a>(
        &'a self,
        step: &'a crate::steps::AgentStep,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<Done, StepError>>;

    /// Takes back what `undoes` made and nothing else; quiet when there is nothing.
    fn undo<'a>(
        &'a self,
        step: &'a crate::steps::AgentStep,
        context: &'a StepContext,
        undoes: &'a [Undoes],
    ) -> BoxFuture<'a, Result<Done, StepError>>;

    /// Names of all runs that have left files on the host; each begins with the [`StepContext::run_id`] that made it.
    fn runs(&self) -> Vec<String> {
        Vec::new()
    }

    /// Removes the files of a run whose operation the journal has forgotten, unless it still runs.
    fn forget_run<'a>(&'a self, _run: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}
