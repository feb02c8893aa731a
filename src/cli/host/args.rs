use clap::{Args, Subcommand};
use std::net::IpAddr;

use crate::cli::{
    agent::args::{AgentUpgrade, AgentsChange, Invitation, RevokeArgs, Token},
    frame::{
        args::{Consent, Creation, Trial},
        values::port,
    },
};

#[derive(Debug, Subcommand)]
pub(crate) enum Host {
    /// Add hosts whose agents run; with --token, print the command that enrols a host
    Add(HostAdd),
    /// List the hosts
    List,
    /// Show a host
    Show {
        /// Id, address or alias of the host
        host: String,
    },
    /// Remove a host that runs no services
    Remove {
        /// Id, address or alias of the host
        host: String,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        trial: Trial,
    },
    /// Revoke a host's certificate at once; its services keep running
    Revoke(RevokeArgs),
    /// Manage enrolment tokens, with which hosts request their first certificate
    #[command(subcommand)]
    Token(Token),
    /// List the certificates that were issued to hosts
    Certificates,
    /// Show the agent of a host
    Agent {
        /// Id, address or alias of the host
        host: String,
    },
    /// Restart agents; the services on their hosts keep running
    RestartAgent(AgentsChange),
    /// Upgrade agents a few at a time, stopping at the first failure; the services on their hosts keep running
    UpgradeAgent(AgentUpgrade),
    /// Stop agents; they can only be started again on their hosts
    StopAgent(AgentsChange),
    /// Raise the coordinator's epoch above that of a host's agent, so that the agent accepts the coordinator again
    ///
    /// Use this when the agent refuses the coordinator because it has seen a higher epoch, from a clock that was ahead.
    /// It takes effect when the coordinator is restarted. Make sure first that no other coordinator manages the host.
    ResetEpoch {
        /// Id, address or alias of the host
        host: String,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        trial: Trial,
    },
}

#[derive(Debug, Args)]
pub(crate) struct HostAdd {
    /// Addresses of the hosts, up to 50
    #[arg(required = true, num_args = 1..=50, value_name = "IP")]
    pub(crate) addresses: Vec<IpAddr>,
    /// Port of the agent
    #[arg(long, default_value_t = 62898, value_parser = port(), value_name = "PORT")]
    pub(crate) agent_port: u16,
    /// Port of the agent's metrics
    #[arg(long, default_value_t = 62899, value_parser = port(), value_name = "PORT")]
    pub(crate) metrics_port: u16,
    /// Name for the host that other commands accept
    #[arg(long)]
    pub(crate) alias: Option<String>,
    /// Free text about the host
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Id or name of the data centre, see oblet idc
    #[arg(long, value_name = "IDC")]
    pub(crate) idc: Option<String>,
    /// Id or name of the host type, see oblet host-type
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) host_type: Option<String>,
    #[command(flatten)]
    pub(crate) creation: Creation,
    /// Print for each host the command that enrols it; add the host after that
    #[arg(long, conflicts_with_all = [
        "agent_port", "metrics_port", "alias", "description", "idc", "host_type", "detach", "idempotency_key",
    ])]
    pub(crate) token: bool,
    #[command(flatten)]
    pub(crate) invitation: Invitation,
}
