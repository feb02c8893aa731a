//! What the agent leaves to the program that replaces it, and what that leaves to the agent.

use super::guard::Guard;
use crate::{
    agent::host::durable::write_json,
    steps::values::{PackageRef, Sha256},
};
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Files of the run directory, besides those of the shim.
pub(super) const PLAN: &str = "replacement";
pub(super) const VERDICT: &str = "verdict";
/// There as soon as the plan was begun.
pub(super) const BEGUN: &str = "begun";
/// Copy of the program that served when the run began. It carries the plan out, and comes back if that fails.
pub(super) const PROGRAM: &str = "oblet-agent";

/// What is done with the agent's program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Change {
    Install {
        package: PackageRef,
        file: PathBuf,
        sha256: Sha256,
    },
    /// A saved program takes the place of the installed one, whatever the package database says.
    Restore {
        program: PathBuf,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) change: Change,
    /// Where the agent is installed.
    pub(super) program: PathBuf,
    pub(super) fallback: PathBuf,
    /// Unit that runs the agent.
    pub(super) service: String,
    /// There as long as the program is not the one of the installed package.
    pub(super) mark: PathBuf,
    /// Where it is written down from which package the program comes.
    pub(super) origin: PathBuf,
    pub(super) guard: Guard,
    pub(super) search_path: Vec<PathBuf>,
    pub(super) install_limit: Duration,
    /// From the request for a restart until the agent is ready.
    pub(super) ready_limit: Duration,
}

/// How a plan ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "why", rename_all = "snake_case")]
pub(super) enum Verdict {
    /// The service is ready and runs what was asked for.
    Replaced,
    /// Nothing was changed.
    Unchanged(String),
    /// The program from before is back and ready.
    RolledBack(String),
    /// Neither is ready.
    Stranded(String),
}

impl Verdict {
    /// 0, or what tells an administrator apart what happened.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Replaced => 0,
            Self::Unchanged(_) => 3,
            Self::RolledBack(_) => 4,
            Self::Stranded(_) => 5,
        }
    }

    /// Beside the plan.
    pub(super) fn write(&self, plan: &Path) -> io::Result<()> {
        write_json(&plan.with_file_name(VERDICT), self)
    }
}
