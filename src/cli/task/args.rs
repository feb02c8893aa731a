use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};

use crate::cli::frame::{
    args::{Consent, Run, Trial},
    values::id,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// List tasks, newest first
    List {
        /// Only tasks with this status; repeat it for several
        #[arg(long, value_parser = status(), ignore_case = true, value_name = "STATUS")]
        status: Vec<String>,
        /// Maximum number of tasks to list
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=2000), value_name = "COUNT")]
        limit: u64,
    },
    /// Show a task and its subtasks in the order in which they run
    Show {
        /// Id of the task
        #[arg(value_parser = id)]
        id: u64,
    },
    /// Follow tasks until they finish
    Watch {
        /// Ids of the tasks
        #[arg(required = true, value_name = "ID", value_parser = id)]
        ids: Vec<u64>,
    },
    /// Print the log of a subtask, or of all that have started
    Log {
        /// Id of the task
        #[arg(value_parser = id)]
        id: u64,
        /// Id of the subtask
        #[arg(value_parser = id)]
        subtask: Option<u64>,
        /// Keep printing until the task, or the subtask, finishes
        #[arg(short, long)]
        follow: bool,
    },
    /// Undo the failed subtasks of a task and run them again
    Retry {
        /// Id of the task
        #[arg(value_parser = id)]
        id: u64,
        #[command(flatten)]
        run: Run,
    },
    /// Undo everything that a failed task has done
    Rollback(TaskChange),
    /// Stop a task; it is FAILED then and can be retried or rolled back
    Cancel(TaskChange),
    /// Release the hosts and proxies that an abandoned task has reserved; what it left there stays
    Unlock {
        /// Id of the task
        #[arg(value_parser = id)]
        id: u64,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        trial: Trial,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TaskChange {
    /// Id of the task
    #[arg(value_parser = id)]
    pub(crate) id: u64,
    #[command(flatten)]
    pub(crate) consent: Consent,
    #[command(flatten)]
    pub(crate) run: Run,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Subtask {
    /// List the subtasks of a task in the order in which they run
    List {
        /// Id of the task
        #[arg(value_parser = id)]
        task: u64,
    },
    /// Show a subtask, and why it failed or what it waits for
    Show {
        #[command(flatten)]
        of: SubtaskId,
    },
    /// Undo a failed subtask and run it again
    Retry {
        #[command(flatten)]
        of: SubtaskId,
        #[command(flatten)]
        trial: Trial,
    },
    /// Mark a failed subtask as done without running it, and continue
    Skip(SubtaskChange),
    /// Stop a running subtask; it is FAILED then
    Cancel(SubtaskChange),
    /// Print the log of a subtask
    Log {
        #[command(flatten)]
        of: SubtaskId,
        /// Keep printing until the subtask finishes
        #[arg(short, long)]
        follow: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SubtaskChange {
    #[command(flatten)]
    pub(crate) of: SubtaskId,
    #[command(flatten)]
    pub(crate) consent: Consent,
    #[command(flatten)]
    pub(crate) trial: Trial,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct SubtaskId {
    /// Id of the task
    #[arg(value_parser = id)]
    pub(crate) task: u64,
    /// Id of the subtask
    #[arg(value_parser = id)]
    pub(crate) subtask: u64,
}

/// In any case, as people type it.
fn status() -> impl TypedValueParser<Value = String> {
    PossibleValuesParser::new(["RUNNING", "FAILED", "SUCCESSFUL"]).map(|status| status.to_uppercase())
}
