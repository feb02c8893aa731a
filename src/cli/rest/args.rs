//! The options that say where the coordinator is and who asks it.

use clap::Args;
use std::{path::PathBuf, time::Duration};

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct AccessArgs {
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
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=3600) => Ok(Duration::from_secs(seconds)),
        _ => Err("not a number of seconds from 1 to 3600".into()),
    }
}
