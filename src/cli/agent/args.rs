use clap::{Args, Subcommand};
use std::{path::PathBuf, time::Duration};

use crate::cli::frame::{
    args::{Consent, Creation, Trial},
    values::{duration, id},
};

#[derive(Debug, Args)]
pub(crate) struct AgentsChange {
    /// Ids, addresses or aliases of the hosts
    #[arg(required = true, value_name = "HOST")]
    pub(crate) hosts: Vec<String>,
    #[command(flatten)]
    pub(crate) consent: Consent,
    #[command(flatten)]
    pub(crate) creation: Creation,
}

#[derive(Debug, Args)]
pub(crate) struct AgentUpgrade {
    /// Ids, addresses or aliases of the hosts
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "HOST")]
    pub(crate) hosts: Vec<String>,
    /// All hosts of the coordinator
    #[arg(long)]
    pub(crate) all: bool,
    /// Package of oblet-agent: a local rpm or deb file, which is uploaded unless it is there already, or the id of an
    /// uploaded one; repeat it for other kinds of hosts
    #[arg(long = "package", required = true, value_name = "PATH|ID")]
    pub(crate) packages: Vec<PathBuf>,
    /// Number of agents to upgrade at a time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=200), value_name = "COUNT")]
    pub(crate) parallel: u16,
    #[command(flatten)]
    pub(crate) consent: Consent,
    #[command(flatten)]
    pub(crate) creation: Creation,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// List the tokens, newest first; the secrets themselves are not stored
    List,
    /// Revoke a token that has not been used
    Revoke {
        /// Id of the token
        #[arg(value_parser = id)]
        id: u64,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        trial: Trial,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// Id, address or alias of the host; the address also if the host was enrolled but never added
    #[arg(value_name = "HOST")]
    pub(crate) host: String,
    #[command(flatten)]
    pub(crate) consent: Consent,
    #[command(flatten)]
    pub(crate) trial: Trial,
}

/// What the command that enrols a host is made with.
#[derive(Debug, Args)]
pub(crate) struct Invitation {
    /// How long the command is valid, such as 30m, 2h or 1d
    #[arg(long, value_parser = duration, default_value = "1h", requires = "token", value_name = "DURATION")]
    pub(crate) ttl: Duration,
    /// Accept the token from any address, for a host behind a NAT gateway
    #[arg(long, requires = "token")]
    pub(crate) any_source: bool,
    /// URL at which the host reaches the coordinator [default: the one that the coordinator advertises]
    #[arg(long, requires = "token", value_name = "URL")]
    pub(crate) coordinator: Option<String>,
}
