use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{net::IpAddr, path::PathBuf, time::Duration};

use super::{
    enrolment::{HostName, ttl},
    obproxy::{AddArgs, CreateArgs},
    output::Format,
};

/// Manages OceanBase hosts through the oblet coordinator.
#[derive(Debug, Parser)]
#[command(
    name = "oblet",
    version,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict or bad request, 5 not authorised, \
                  6 coordinator unreachable, 7 timed out, 130 interrupted."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Address of the coordinator
    #[arg(long, env = "OBLET_URL", default_value = "https://127.0.0.1:8443", global = true)]
    pub(crate) url: String,
    /// User name at the coordinator
    #[arg(long, env = "OBLET_USER", default_value = "admin", global = true)]
    pub(crate) user: String,
    /// File with the user's password, "-" for standard input; or set OBLET_PASSWORD
    #[arg(long, env = "OBLET_PASSWORD_FILE", value_name = "FILE", global = true)]
    pub(crate) password_file: Option<PathBuf>,
    /// File with the certificates to trust (PEM), instead of the system's
    #[arg(long, env = "OBLET_CA", value_name = "FILE", global = true)]
    pub(crate) ca: Option<PathBuf>,
    /// Seconds to wait for an answer of the coordinator
    #[arg(long, env = "OBLET_TIMEOUT", value_name = "SECONDS", default_value = "30", value_parser = seconds, global = true)]
    pub(crate) timeout: Duration,
    /// What to print: a table, the API's data, or only what other commands take as argument
    #[arg(short, long, value_enum, default_value_t, global = true)]
    pub(crate) output: Format,
    /// Print tables without their first line
    #[arg(long, global = true)]
    pub(crate) no_headers: bool,
    /// When to use colours; NO_COLOR in the environment means never
    #[arg(long, value_enum, default_value_t, value_name = "WHEN", global = true)]
    pub(crate) color: Color,
    /// Draw no progress
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Hosts under the coordinator's control
    #[command(subcommand)]
    Host(Host),
    /// Installation packages
    #[command(subcommand)]
    Package(Package),
    /// OBProxy clusters
    #[command(subcommand)]
    Obproxy(Obproxy),
    /// What the coordinator does and did
    #[command(subcommand)]
    Task(Task),
    /// The steps of a task
    #[command(subcommand)]
    Subtask(Subtask),
    /// What Prometheus scrapes
    #[command(subcommand)]
    Target(Target),
    /// Print the completion script of a shell
    Completion { shell: clap_complete::Shell },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Host {
    /// Take hosts under control, whose agents must be running; with --token, let them in first
    Add(HostAdd),
    /// List the hosts
    List,
    /// Show a host and what runs on it
    Show { id: u64 },
    /// Let go of a host that runs nothing
    Remove(Removal),
    /// Trust a host no more, at once; what runs on it goes on
    Revoke(HostRevoke),
    /// Tokens with which hosts ask for their first certificate
    #[command(subcommand)]
    Token(Token),
    /// List the certificates that hosts were given
    Certificates,
    /// Show the agent of a host
    Agent { id: u64 },
    /// Restart the agents of hosts; what they have started goes on
    RestartAgent {
        #[arg(required = true, value_name = "ID")]
        ids: Vec<u64>,
        #[command(flatten)]
        creation: Creation,
    },
    /// Upgrade the agents of hosts, a few at a time, up to the first that fails; what they have started goes on
    UpgradeAgent(AgentUpgrade),
    /// Stop the agents of hosts, which can then be started on the hosts only
    StopAgent {
        #[arg(required = true, value_name = "ID")]
        ids: Vec<u64>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        creation: Creation,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AgentUpgrade {
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "ID")]
    pub(crate) ids: Vec<u64>,
    /// All hosts that the coordinator knows
    #[arg(long)]
    pub(crate) all: bool,
    /// File of oblet-agent for one kind of hosts, rpm or deb, which is uploaded if it is not there; can be given again
    #[arg(long = "package", required = true, value_name = "FILE")]
    pub(crate) packages: Vec<PathBuf>,
    /// How many agents are upgraded at a time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=200), value_name = "COUNT")]
    pub(crate) parallel: u16,
    #[command(flatten)]
    pub(crate) creation: Creation,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// List the tokens, newest first; the tokens themselves are not kept
    List,
    /// Make a token worthless that was not used
    Revoke { id: u64 },
}

#[derive(Debug, Args)]
pub(crate) struct HostRevoke {
    /// Id or address of the host
    #[arg(value_name = "HOST")]
    pub(crate) host: HostName,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Check that it can be revoked without revoking it
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HostAdd {
    /// Addresses of the hosts; one request takes up to 50
    #[arg(required = true, num_args = 1..=50, value_name = "IP")]
    pub(crate) addresses: Vec<IpAddr>,
    /// Port on which the agent takes requests
    #[arg(long, default_value_t = 62898, value_parser = port(), value_name = "PORT")]
    pub(crate) agent_port: u16,
    /// Port on which the agent serves metrics
    #[arg(long, default_value_t = 62899, value_parser = port(), value_name = "PORT")]
    pub(crate) metrics_port: u16,
    #[arg(long)]
    pub(crate) alias: Option<String>,
    #[arg(long)]
    pub(crate) description: Option<String>,
    #[command(flatten)]
    pub(crate) creation: Creation,
    /// Print for each host the line that enrols it; the host is added after that
    #[arg(long, conflicts_with_all = ["agent_port", "metrics_port", "alias", "description"])]
    pub(crate) token: bool,
    /// How long the line works, such as 30m or 2h
    #[arg(long, value_parser = ttl, default_value = "1h", requires = "token", value_name = "TIME")]
    pub(crate) ttl: Duration,
    /// The host is behind a gateway and comes from another address than its own
    #[arg(long, requires = "token")]
    pub(crate) any_source: bool,
    /// Address under which the host reaches the coordinator, if not under the one that it advertises
    #[arg(long, requires = "token", value_name = "URL")]
    pub(crate) coordinator: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Package {
    /// Send an RPM to the coordinator
    Upload { file: PathBuf },
    /// List the packages
    List,
    /// Remove a package that nothing uses
    Remove(Removal),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Obproxy {
    /// Create an OBProxy cluster, with proxies on the given hosts
    Create(Box<CreateArgs>),
    /// Add a proxy on each of the given hosts to a cluster
    Add(AddArgs),
    /// List the clusters
    List,
    /// Show a cluster and its proxies
    Show {
        /// Id or name of the cluster
        cluster: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// List the tasks, newest first
    List {
        /// Only tasks in this state; may be repeated
        #[arg(long, value_parser = task_status(), value_name = "STATUS")]
        status: Vec<String>,
        /// How many to list at most
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=2000), value_name = "COUNT")]
        limit: u64,
    },
    /// Show a task and its subtasks, in the order in which they run
    Show { id: u64 },
    /// Follow tasks to their end
    Watch {
        #[arg(required = true, value_name = "ID")]
        ids: Vec<u64>,
    },
    /// Print the log of a subtask, or of all that have started
    Log { id: u64, subtask: Option<u64> },
    /// Undo the failed subtasks of a task and run them again
    Retry(TaskChange),
    /// Undo all that a failed task did
    Rollback(TaskChange),
    /// End what runs of a task and begin nothing more of it; it counts as failed then
    Cancel(TaskChange),
    /// Release what a task has reserved that nobody will take up again; what it left there stays
    Unlock {
        id: u64,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Show what would be released without releasing it
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Subtask {
    /// Undo a failed subtask and run it again
    Retry(SubtaskChange),
    /// Take a failed subtask for done, without running it, and go on behind it
    Skip {
        #[command(flatten)]
        change: SubtaskChange,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// End the run of a subtask, which then counts as failed
    Cancel(SubtaskChange),
    /// Print the log of a subtask
    Log {
        #[command(flatten)]
        of: SubtaskId,
        /// Go on printing what is written, until the subtask is at rest
        #[arg(short, long)]
        follow: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Target {
    /// List the targets of Prometheus
    List,
}

/// How a command treats the task it starts.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Do not wait for the end; print the id of the task
    #[arg(long)]
    pub(crate) detach: bool,
    /// Show the steps without running them
    #[arg(long, conflicts_with = "detach")]
    pub(crate) dry_run: bool,
}

/// How a command sends the request that makes tasks.
#[derive(Debug, Args)]
pub(crate) struct Creation {
    #[command(flatten)]
    pub(crate) run: Run,
    /// Key of the request, which makes its tasks once however often it is sent with it; else one of its own
    #[arg(long, value_name = "KEY", value_parser = idempotency_key, conflicts_with = "dry_run")]
    pub(crate) idempotency_key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TaskChange {
    pub(crate) id: u64,
    #[command(flatten)]
    pub(crate) run: Run,
}

#[derive(Debug, Args)]
pub(crate) struct SubtaskChange {
    #[command(flatten)]
    pub(crate) of: SubtaskId,
    /// Show the subtask as it would stand right after, without changing it
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct SubtaskId {
    pub(crate) task: u64,
    pub(crate) subtask: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Removal {
    pub(crate) id: u64,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

pub(crate) fn port() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

fn task_status() -> clap::builder::PossibleValuesParser {
    ["RUNNING", "FAILED", "SUCCESSFUL"].into()
}

/// What the coordinator takes as a key.
fn idempotency_key(text: &str) -> Result<String, String> {
    match text.len() {
        1..=191 if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text.into()),
        _ => Err("a key has 1 to 191 visible ASCII characters".into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=3600) => Ok(Duration::from_secs(seconds)),
        _ => Err("not a number of seconds from 1 to 3600".into()),
    }
}
