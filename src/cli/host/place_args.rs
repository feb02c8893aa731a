use clap::{Args, Subcommand};

use crate::cli::args::{Consent, Trial};

/// Commands about the places and kinds of hosts; only what a new entry takes differs.
#[derive(Debug, Subcommand)]
pub(crate) enum Place<A: Args> {
    /// List them
    List,
    /// Add one
    Add(A),
    /// Remove one that no host uses
    Remove(SiteRemoval),
}

#[derive(Debug, Args)]
pub(crate) struct SiteAdd {
    /// Its name
    pub(crate) name: String,
    /// Free text
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    #[command(flatten)]
    pub(crate) trial: Trial,
}

#[derive(Debug, Args)]
pub(crate) struct IdcAdd {
    #[command(flatten)]
    pub(crate) site: SiteAdd,
    /// Id or name of its region
    #[arg(long, value_name = "REGION")]
    pub(crate) region: String,
}

#[derive(Debug, Args)]
pub(crate) struct SiteRemoval {
    /// Its id or name
    #[arg(value_name = "ID|NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) consent: Consent,
    #[command(flatten)]
    pub(crate) trial: Trial,
}
