//! Logs of the daemons, and the words in which errors are told.

mod journal;

use journal::Journal;
use std::{
    error::Error,
    io::{self, IsTerminal as _},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, layer::SubscriberExt as _, registry::LookupSpan, reload, util::SubscriberInitExt as _,
};

/// Where log lines go, and how they look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// To the journal if it reads stderr, as text on stderr otherwise.
    #[default]
    Auto,
    /// Lines on stderr.
    Text,
    /// Objects on stderr, one on each line.
    Json,
    /// Entries with fields, over the journal's own socket.
    Journal,
}

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the log filter cannot be understood")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("the journal cannot be written to")]
    Journal(#[source] io::Error),
    #[error("the log of this process is already set up")]
    Taken(#[from] tracing_subscriber::util::TryInitError),
    #[error("the log filter cannot be replaced")]
    Gone(#[from] reload::Error),
}

/// What is logged, to be replaced while the program runs.
pub struct LogFilter(reload::Handle<EnvFilter, Registry>);

impl LogFilter {
    pub fn replace(&self, filter: &str) -> Result<(), LogError> {
        Ok(self.0.reload(EnvFilter::try_new(filter)?)?)
    }
}

/// Starts the log of the program `name`. `filter` is in the syntax of `RUST_LOG`, such as "info" or
/// "oblet=debug,info".
pub fn init(name: &str, filter: &str, format: LogFormat) -> Result<LogFilter, LogError> {
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(filter)?);
    tracing_subscriber::registry().with(filter).with(output(name, format)?).try_init()?;
    Ok(LogFilter(handle))
}

type Output<S> = Box<dyn Layer<S> + Send + Sync>;

fn output<S>(name: &str, format: LogFormat) -> Result<Output<S>, LogError>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let stderr = || tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    Ok(match format {
        LogFormat::Text => stderr().boxed(),
        LogFormat::Json => stderr().json().flatten_event(true).boxed(),
        LogFormat::Journal => Journal::open(name).map_err(LogError::Journal)?.boxed(),
        LogFormat::Auto => match stderr_is_journal().then(|| Journal::open(name)) {
            Some(Ok(journal)) => journal.boxed(),
            // The journal that reads stderr takes lines too.
            Some(Err(_)) | None => stderr().boxed(),
        },
    })
}

/// `JOURNAL_STREAM` names the device and inode of the journal's end; a redirected stderr has others. systemd.exec(5)
pub fn stderr_is_journal() -> bool {
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| {
        let stderr = io::stderr().as_fd().try_clone_to_owned().map(std::fs::File::from);
        let metadata = stderr.and_then(|stderr| stderr.metadata());
        metadata.is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
    })
}

/// The causes of an error, from the outermost to the innermost, without the error itself.
pub fn causes(error: &dyn Error) -> Vec<String> {
    std::iter::successors(error.source(), |cause| (*cause).source()).map(ToString::to_string).collect()
}

/// An error with its causes on one line.
pub fn chain(error: &dyn Error) -> String {
    std::iter::once(error.to_string()).chain(causes(error)).collect::<Vec<_>>().join(": ")
}

/// Tells the log what came of a reload.
pub fn reloaded(needs_restart: &[String]) {
    if needs_restart.is_empty() {
        tracing::info!("settings and certificates are reloaded");
    } else {
        tracing::warn!(
            settings = needs_restart.join(", "),
            "settings and certificates are reloaded; a setting that was changed needs a restart"
        );
    }
}

/// Tells the log why a reload changed nothing.
pub fn not_reloaded(error: &dyn Error) {
    tracing::error!(error = chain(error), "nothing is reloaded: settings and certificates stay as they are");
}
