use reqwest::StatusCode;
use std::{io, path::PathBuf, process::ExitCode};

use super::{output::printable, task_model::Task};
use crate::telemetry;

/// Why a command did not do what it was asked to. Display says what failed; the rest is told by [`CliError::report`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("{message}")]
    Usage { message: String, next: String },
    #[error("{path} cannot be read")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the client for HTTPS cannot be set up")]
    Client(#[source] reqwest::Error),
    #[error("cannot {doing}")]
    Refused { doing: String, refusal: Box<Refusal> },
    #[error("cannot {doing}")]
    Unreachable {
        doing: String,
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("cannot {doing}")]
    TimedOut { doing: String, seconds: u64 },
    #[error("cannot {doing}")]
    NotFound { doing: String, cause: String, next: String },
    #[error("cannot {doing}")]
    Unreadable { doing: String, cause: String },
    /// Each task tells for itself why it failed.
    #[error("{} failed", plural(.0.len()))]
    Tasks(Vec<Task>),
    #[error("interrupted")]
    Interrupted { next: String },
    #[error("the program cannot be set up")]
    Runtime(#[source] io::Error),
    #[error("standard input cannot be read")]
    Input(#[source] io::Error),
    #[error("the output cannot be written")]
    Output(#[source] io::Error),
    /// The reader of a pipe has seen enough: no failure.
    #[error("the output is closed")]
    OutputClosed,
}

/// What the coordinator says when it refuses a request.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: Option<i64>,
    pub(crate) message: String,
    /// What the coordinator objects to, field by field.
    pub(crate) details: Vec<String>,
    pub(crate) next_move: Option<String>,
    pub(crate) trace_id: Option<String>,
}

fn plural(tasks: usize) -> String {
    if tasks == 1 { "the task".into() } else { format!("{tasks} tasks") }
}

/// A part of a report: its lines stand under each other. Without a label it goes on with the part above it.
pub(crate) fn labelled(label: &str, value: &str) -> String {
    let label = if label.is_empty() { String::new() } else { format!("{label}:") };
    let labels = std::iter::once(label.as_str()).chain(std::iter::repeat(""));
    labels.zip(value.lines()).map(|(label, line)| format!("  {label:<8}{}\n", printable(line))).collect()
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Output(error),
        }
    }
}

impl CliError {
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::OutputClosed => 0,
            Self::Client(_) | Self::Unreadable { .. } | Self::Tasks(_) => 1,
            Self::Runtime(_) | Self::Input(_) | Self::Output(_) => 1,
            Self::Usage { .. } | Self::File { .. } => 2,
            Self::NotFound { .. } => 3,
            Self::Refused { refusal, .. } => refusal.exit_code(),
            Self::Unreachable { .. } => 6,
            Self::TimedOut { .. } => 7,
            Self::Interrupted { .. } => 130,
        })
    }

    /// The coordinator may answer the same question a moment later.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Refused { refusal, .. } => matches!(refusal.status.as_u16(), 429 | 502 | 503 | 504),
            _ => false,
        }
    }

    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// There was no connection over which anything could have been sent.
    pub(crate) fn is_refused_connection(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. } if source.is_connect())
    }

    /// What failed, why, what to do about it, and what to quote when asking for help.
    pub(crate) fn report(&self) -> String {
        let mut text = format!("{self}\n");
        let mut line = |name: &str, value: &str| text.push_str(&labelled(name, value));
        for cause in self.causes() {
            line("cause", &cause);
        }
        if let Some(next) = self.next_move() {
            line("next", &next);
        }
        if let Self::Refused { refusal, .. } = self {
            let status = refusal.status.as_u16();
            match refusal.code {
                Some(code) => line("code", &format!("{code} (HTTP {status})")),
                None => line("code", &format!("HTTP {status}")),
            }
            if let Some(trace_id) = &refusal.trace_id {
                line("trace", trace_id);
            }
        }
        text
    }

    fn causes(&self) -> Vec<String> {
        match self {
            Self::Refused { refusal, .. } => {
                let told = |detail: &&String| !refusal.message.contains(detail.as_str());
                std::iter::once(&refusal.message).chain(refusal.details.iter().filter(told)).cloned().collect()
            }
            Self::Unreachable { url, source, .. } => {
                // The last of reqwest's causes names the reason; the ones before it only say which layer passed it on.
                let reason = telemetry::causes(source).pop().unwrap_or_else(|| source.to_string());
                vec![format!("{url} cannot be reached: {reason}")]
            }
            Self::TimedOut { seconds, .. } => vec![format!("the coordinator did not answer within {seconds} s")],
            Self::NotFound { cause, .. } | Self::Unreadable { cause, .. } => vec![cause.clone()],
            _ => telemetry::causes(self),
        }
    }

    fn next_move(&self) -> Option<String> {
        match self {
            Self::Usage { next, .. } | Self::NotFound { next, .. } | Self::Interrupted { next } => Some(next.clone()),
            Self::Refused { refusal, .. } => refusal.next_move().map(ToOwned::to_owned),
            Self::Unreachable { .. } => {
                Some("see that the coordinator runs and that --url (OBLET_URL) and --ca (OBLET_CA) fit it".into())
            }
            Self::TimedOut { .. } => Some(
                "a change may have been made all the same, see: oblet task list; or wait longer with --timeout".into(),
            ),
            Self::Unreadable { .. } => {
                Some("see that --url (OBLET_URL) names an oblet coordinator of this version".into())
            }
            Self::File { .. } => Some("see that the file exists and that you may read it".into()),
            Self::Client(_) => Some("name the certificates to trust with --ca (OBLET_CA)".into()),
            Self::Tasks(_) | Self::Runtime(_) | Self::Input(_) | Self::Output(_) | Self::OutputClosed => None,
        }
    }
}

impl Refusal {
    fn exit_code(&self) -> u8 {
        match self.status.as_u16() {
            401 | 403 => 5,
            404 => 3,
            408 | 504 => 7,
            502 | 503 => 6,
            400..500 => 4,
            _ => 1,
        }
    }

    /// The coordinator's own advice, which knows the case; else what its status suggests.
    fn next_move(&self) -> Option<&str> {
        if let Some(next) = &self.next_move {
            return Some(next);
        }
        Some(match self.status.as_u16() {
            300..400 => "see that --url (OBLET_URL) names the coordinator itself",
            400 | 422 => "correct the request and send it again",
            401 => "check --user (OBLET_USER) and the password",
            403 => "ask an administrator for a role that may do this",
            404 => "see what there is with the list command",
            409 | 412 => "see what is there with the show and list commands",
            429 | 502..=504 => "try again in a moment",
            500 => "look into the coordinator's log",
            _ => return None,
        })
    }
}
