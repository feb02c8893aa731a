//! What the command line takes. The doc comments are the help texts.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{path::PathBuf, time::Duration};

pub(crate) use super::{
    host::{
        args::{AgentUpgrade, AgentsChange, Host, HostAdd, HostRevoke, Token},
        place_args::{IdcAdd, Place, SiteAdd, SiteRemoval},
    },
    obproxy::args::{CreateArgs, Obproxy, Parameter, Ports, WorkMode},
    task::args::{Subtask, SubtaskId, Task},
};

use super::{
    console::output::Format,
    frame::values::{idempotency_key, seconds},
};

pub(crate) const EXIT_CODES: &[(u8, &str)] = &[
    (0, "done"),
    (1, "failed; or something is wrong (oblet status); or too many requests: wait as long as the error says"),
    (2, "wrong usage, or not confirmed"),
    (3, "not found"),
    (4, "conflict or bad request"),
    (5, "not authorised"),
    (6, "coordinator or agent unreachable, or certificate not trusted"),
    (7, "timed out"),
    (130, "interrupted"),
];

/// Variables of the environment beside those that clap knows of an option.
pub(crate) const ENVIRONMENT: &[(&str, &str)] = &[
    ("OBLET_URL", "URL of the coordinator, as --url"),
    ("OBLET_USER", "user name at the coordinator, as --user"),
    ("OBLET_PASSWORD", "the user's password; --password-file and OBLET_PASSWORD_FILE take precedence"),
    ("OBLET_PASSWORD_FILE", "file with the user's password, as --password-file"),
    ("OBLET_CA", "file with the certificates to trust, as --ca"),
    ("OBLET_CONTEXT", "context to use, as --context"),
    ("OBLET_TIMEOUT", "seconds to wait for an answer, as --timeout"),
    ("NO_COLOR", "if not empty, print no colours unless --color says otherwise"),
    ("XDG_CONFIG_HOME", "directory above oblet/config.toml, which holds the contexts; ~/.config if not set"),
];

/// Manage OceanBase hosts through the oblet coordinator
#[derive(Debug, Parser)]
#[command(name = "oblet", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// URL of the coordinator [env: OBLET_URL] [default: the context's, else https://127.0.0.1:8443]
    #[arg(long, global = true)]
    pub(crate) url: Option<String>,
    /// User name at the coordinator [env: OBLET_USER] [default: the context's, else admin]
    #[arg(long, global = true)]
    pub(crate) user: Option<String>,
    /// File with the user's password, "-" for standard input [env: OBLET_PASSWORD_FILE, or the password itself in
    /// OBLET_PASSWORD] [default: the context's, else ask on a terminal]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) password_file: Option<PathBuf>,
    /// File with the certificates to trust (PEM) [env: OBLET_CA] [default: the context's, else the system's]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) ca: Option<PathBuf>,
    /// Context to use, in place of the environment's OBLET_URL, OBLET_USER, OBLET_PASSWORD and so on
    /// [env: OBLET_CONTEXT, where those are not set] [default: the current one]
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) context: Option<String>,
    /// Seconds to wait for an answer from the coordinator
    #[arg(long, env = "OBLET_TIMEOUT", hide_env_values = true, value_name = "SECONDS", default_value = "30", value_parser = seconds, global = true)]
    pub(crate) timeout: Duration,
    /// Output format; with json and yaml, errors have the same format
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT", global = true)]
    pub(crate) output: Format,
    /// Print tables without the header line
    #[arg(long, global = true)]
    pub(crate) no_headers: bool,
    /// When to use colours; takes precedence over NO_COLOR in the environment
    #[arg(long, value_enum, default_value_t, value_name = "WHEN", global = true)]
    pub(crate) color: Color,
    /// Do not show progress
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
    /// Show the health of the coordinator, its hosts, tasks and proxies; exit with 1 if something is wrong
    Status,
    /// Manage hosts and their agents
    #[command(subcommand)]
    Host(Host),
    /// Manage installation packages
    #[command(subcommand)]
    Package(Package),
    /// Manage OBProxy clusters
    #[command(subcommand)]
    Obproxy(Obproxy),
    /// List, follow and control tasks
    #[command(subcommand)]
    Task(Task),
    /// List and control the subtasks of a task
    #[command(subcommand)]
    Subtask(Subtask),
    /// Manage regions
    #[command(subcommand)]
    Region(Place<SiteAdd>),
    /// Manage data centres (IDCs)
    #[command(subcommand)]
    Idc(Place<IdcAdd>),
    /// Manage host types
    #[command(subcommand)]
    HostType(Place<SiteAdd>),
    /// Show what Prometheus scrapes
    #[command(subcommand)]
    Target(Target),
    /// Show who changed what
    #[command(subcommand)]
    Audit(Audit),
    /// Manage the user's account
    #[command(subcommand)]
    User(User),
    /// Log in to a coordinator and save it as a context
    ///
    /// Asks for user and password, checks them, and saves URL, user and file names in oblet/config.toml below
    /// $XDG_CONFIG_HOME (~/.config). The password goes to a file of its own there, which only you can read; with
    /// --password-file, the path of that file is saved instead.
    Login {
        /// URL of the coordinator, such as https://10.0.0.10:8443
        #[arg(value_name = "URL")]
        coordinator: String,
        /// Name of the context [default: the host in the URL]
        #[arg(long, value_name = "CONTEXT")]
        name: Option<String>,
    },
    /// Forget the context and its saved password
    Logout,
    /// List contexts or choose one
    #[command(subcommand)]
    Context(Contexts),
    /// Show the versions of oblet and of the coordinator
    Version,
    /// Write a bundle for support: versions, status, hosts, failed tasks with their logs, audit events; no passwords
    Support {
        /// File to write, such as support.tar.gz; it must not exist
        #[arg(value_name = "FILE.tar.gz")]
        file: PathBuf,
    },
    /// Print the completion script for a shell
    Completion { shell: clap_complete::Shell },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Package {
    /// Upload an rpm or deb file to the coordinator; there is no dry run
    Upload {
        /// File whose name is the one in its header
        #[arg(value_name = "PATH")]
        file: PathBuf,
    },
    /// List the packages
    List,
    /// Remove a package that no proxy uses
    Remove {
        /// Id or file name of the package
        package: String,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        trial: Trial,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Target {
    /// List the targets
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List changes, newest first
    List {
        /// Only changes by this user
        #[arg(long = "by", value_name = "USER")]
        user: Option<String>,
        /// Only actions that begin with this, such as task or task.retry
        #[arg(long, value_name = "ACTION")]
        action: Option<String>,
        /// Only changes to this object, such as "task 33001"
        #[arg(long, value_name = "OBJECT")]
        object: Option<String>,
        /// Maximum number of changes to list
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..), value_name = "COUNT")]
        limit: u32,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Change your password
    ///
    /// Asks for the current password, and twice for the new one. If the context of oblet login holds the password, it
    /// holds the new one afterwards.
    Passwd {
        /// File with the new password, "-" for standard input; required without a terminal
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
        #[command(flatten)]
        trial: Trial,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Contexts {
    /// List the contexts; the current one has a star
    List,
    /// Make a context the current one
    Use {
        /// Name of the context
        #[arg(value_name = "CONTEXT")]
        name: String,
    },
}

/// How a command treats the task that it starts.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Do not wait for the task to finish; print its id
    #[arg(long)]
    pub(crate) detach: bool,
    /// Show what would be done without doing it
    #[arg(long, conflicts_with = "detach")]
    pub(crate) dry_run: bool,
}

/// How a command sends the request that creates tasks.
#[derive(Debug, Args)]
pub(crate) struct Creation {
    #[command(flatten)]
    pub(crate) run: Run,
    /// Key of the request: sent again with the same key, it creates no further tasks [default: a random key]
    #[arg(long, value_name = "KEY", value_parser = idempotency_key, conflicts_with = "dry_run")]
    pub(crate) idempotency_key: Option<String>,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Consent {
    /// Do not ask for confirmation
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Trial {
    /// Check whether it can be done without doing it
    #[arg(long)]
    pub(crate) dry_run: bool,
}
