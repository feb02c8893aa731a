//! The options that several commands have in common.

use clap::Args;

use super::values::idempotency_key;

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

pub(crate) fn dry_run_query(dry_run: bool) -> &'static [(&'static str, &'static str)] {
    if dry_run { &[("dryRun", "true")] } else { &[] }
}
