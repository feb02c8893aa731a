//! Who starts the processes that outlive the agent.
//!
//! A run is named by its directory. What an implementation guarantees:
//!  1. A run starts its program at most once.
//!  2. [`Supervisor::find`] either finds the run or makes sure that it can never start.
//!  3. The program never holds a pipe to the agent; it appends to its log file.
//!  4. Nothing secret is handed to a program: its arguments and its environment can be read on the host.

use super::identity::ProcessId;
use crate::{
    agent::step::StepError,
    steps::{InstanceKind, values::Port},
};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a run is meant to live.
#[derive(Clone)]
pub enum Kind {
    /// Short work whose outcome is wanted.
    Job,
    /// A job in a network of its own, where this port is reached by nobody but the agent: through [`super::secluded`].
    SecludedJob { port: u16 },
    /// A database process. It goes to the background by itself, unless it is given these further arguments.
    Service { name: ServiceName, foreground: Vec<String> },
}

/// Names a service on its host: at most one process of this name runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceName(String);

impl ServiceName {
    pub fn new(kind: InstanceKind, port: Port) -> Self {
        Self(format!("{}@{port}", kind.as_str()))
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is started.
#[derive(Clone)]
pub struct Launch {
    pub kind: Kind,
    /// One line for the administrator of the host.
    pub description: String,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// The whole environment; everyone may read it, as the arguments.
    pub environment: Vec<(String, String)>,
    pub directory: PathBuf,
    /// uid and gid; none keeps the agent's.
    pub user: Option<(u32, u32)>,
    /// Standard output and standard error are appended to it.
    pub log: PathBuf,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    ExitCode(i32),
    Signal(i32),
    /// The program could not be started.
    NotStarted(String),
    /// It ended and nobody was left to write down how.
    Lost,
}

impl fmt::Display for RunOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExitCode(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::NotStarted(why) => write!(f, "it could not be started: {why}"),
            Self::Lost => f.write_str("unknown outcome"),
        }
    }
}

impl RunOutcome {
    /// Puts exit code or signal into an error.
    pub(in crate::agent::host) fn mark(&self, mut error: StepError) -> StepError {
        match self {
            Self::ExitCode(code) => error.exit_code = Some(*code),
            Self::Signal(signal) => error.signal = Some(*signal),
            Self::NotStarted(_) | Self::Lost => {}
        }
        error
    }
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    Running(ProcessId),
    /// It lives, but has no process at this moment: it is about to start (again) or to end.
    Between,
    Ended(RunOutcome),
    /// It never began and never will.
    Nothing,
}

impl RunState {
    pub fn lives(&self) -> bool {
        match self {
            Self::Running(_) | Self::Between => true,
            Self::Ended(_) | Self::Nothing => false,
        }
    }
}

pub trait Supervisor: Send + Sync {
    /// Returns once the program runs or has failed to; the caller has made `run_dir` durable as its identity.
    fn start<'a>(&'a self, run_dir: &'a Path, launch: &'a Launch) -> BoxFuture<'a, io::Result<()>>;
    /// An error means that nothing is known, never that the run has ended.
    fn find<'a>(&'a self, run_dir: &'a Path) -> BoxFuture<'a, io::Result<RunState>>;
    /// The process of a run, for onlookers: a run that is just being started is left in peace. It costs a few reads of
    /// small files, because every scrape of the metrics asks.
    fn peek(&self, run_dir: &Path) -> io::Result<Option<ProcessId>>;
    /// The service serves: whoever can start it again after a failure shall do so. Until then an end is final.
    fn keep<'a>(&'a self, run_dir: &'a Path) -> BoxFuture<'a, io::Result<()>>;
    /// Every process of the run that lives at this moment.
    fn processes(&self, run_dir: &Path) -> io::Result<Vec<ProcessId>>;
    /// Asks everything of the run to end, insists after `grace`, and returns when nothing of it lives.
    fn stop<'a>(&'a self, run_dir: &'a Path, grace: Duration) -> BoxFuture<'a, io::Result<()>>;
    /// A job goes on while the service manager restarts the agent.
    fn outlives_the_agent(&self) -> bool;
    /// How the run ended; none while it lives or if it never began.
    fn outcome<'a>(&'a self, run_dir: &'a Path) -> BoxFuture<'a, io::Result<Option<RunOutcome>>> {
        Box::pin(async move {
            Ok(match self.find(run_dir).await? {
                RunState::Ended(outcome) => Some(outcome),
                RunState::Running(_) | RunState::Between | RunState::Nothing => None,
            })
        })
    }
}

pub(in crate::agent::host) fn failed(what: &str) -> impl Fn(io::Error) -> StepError + '_ {
    move |error| {
        StepError::new(
            "SUPERVISOR",
            format!("{what} failed"),
            "look at the cause and the agent's log, free space in its state directory if it is full, then retry",
        )
        .because(error)
    }
}
