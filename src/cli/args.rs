//! The command line as a whole; what a noun takes stands beside its commands. The doc comments are the help texts.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

use super::{
    console::args::OutputArgs,
    host::{
        args::Host,
        places::{IdcAdd, Place, SiteAdd},
    },
    obproxy::args::Obproxy,
    package::Package,
    rest::args::AccessArgs,
    system::{audit::Audit, target::Target},
    task::args::{Subtask, Task},
    user::{ContextCommand, User},
};

pub(crate) const EXIT_CODES: &[(u8, &str)] = &[
    (0, "done"),
    (1, "failed; or something is wrong (oblet status); or too many requests: wait as long as the error says"),
    (2, "wrong usage, or not confirmed"),
    (3, "not found"),
    (4, "conflict or bad request"),
    (5, "not authorised"),
    (6, "coordinator or agent unreachable (oblet host agent), or certificate not trusted"),
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
    pub(crate) access: AccessArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
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
    Context(ContextCommand),
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
