use reqwest::StatusCode;
use serde_json::{Value, json};
use std::{io, path::PathBuf, process::ExitCode};

use super::{connection, table::printable};
use crate::telemetry;

/// Why a command did not do what it was asked to. Display says what failed; the rest is told by [`CliError::report`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("{message}")]
    Usage { message: String, next: String },
    /// What has to be confirmed was not; `hint` says how it can be.
    #[error("cannot {doing}; {hint}")]
    Unconfirmed { doing: String, hint: String },
    #[error("cannot read {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {path}")]
    NotSaved {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot set up the HTTPS client")]
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
    /// The request may or may not have been carried out; its key makes it safe to send it again.
    #[error("{error}")]
    Unanswered { key: String, error: Box<Self> },
    /// Each task tells for itself why it failed.
    #[error("{} failed", plural(.0.len()))]
    Tasks(Vec<TaskFailure>),
    #[error("interrupted")]
    Interrupted { next: String },
    /// The command has printed what is wrong.
    #[error("{0}")]
    Unhealthy(String),
    /// What it was asked about is printed: the agent of a host does not answer.
    #[error("{0}")]
    AgentSilent(String),
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    #[error("cannot read the answer from the terminal")]
    Input(#[source] io::Error),
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// The reader of a pipe has seen enough: no failure.
    #[error("the output is closed")]
    OutputClosed,
}

/// A task that failed, and everything an operator must know about that.
#[derive(Debug)]
pub(crate) struct TaskFailure {
    pub(crate) task_id: u64,
    pub(crate) report: String,
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
    pub(crate) retry_after_seconds: Option<u64>,
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
    pub(crate) fn unreadable(doing: &str, cause: &str) -> Self {
        Self::Unreadable { doing: doing.into(), cause: format!("the answer does not follow the API: {cause}") }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::OutputClosed => 0,
            Self::Unanswered { error, .. } => return error.exit_code(),
            Self::Client(_) | Self::Unreadable { .. } | Self::Tasks(_) | Self::Unhealthy(_) => 1,
            Self::Runtime(_) | Self::Input(_) | Self::Output(_) | Self::NotSaved { .. } => 1,
            Self::Usage { .. } | Self::Unconfirmed { .. } | Self::File { .. } => 2,
            Self::NotFound { .. } => 3,
            Self::Refused { refusal, .. } => refusal.exit_code(),
            Self::Unreachable { .. } | Self::AgentSilent(_) => 6,
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

    /// What is printed about it, one text for each error.
    pub(crate) fn reports(&self) -> Vec<String> {
        match self {
            Self::OutputClosed => Vec::new(),
            Self::Tasks(failures) => failures.iter().map(|failure| failure.report.clone()).collect(),
            error => vec![error.report()],
        }
    }

    /// The same for programs.
    pub(crate) fn data(&self) -> Value {
        let mut causes = self.causes().into_iter();
        let message = std::iter::once(self.to_string()).chain(causes.next()).collect::<Vec<_>>().join(": ");
        let refusal = self.refusal();
        let details: Vec<Value> = match self {
            Self::Tasks(failures) => {
                failures.iter().map(|failure| json!({"taskId": failure.task_id, "report": failure.report})).collect()
            }
            _ => causes.map(Value::from).collect(),
        };
        json!({
            "code": refusal.and_then(|refusal| refusal.code),
            "message": message,
            "details": details,
            "nextMove": self.next_move(),
            "status": refusal.map(|refusal| refusal.status.as_u16()),
            "traceId": refusal.and_then(|refusal| refusal.trace_id.as_deref()),
        })
    }

    fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            Self::Unanswered { error, .. } => error.refusal(),
            _ => None,
        }
    }

    /// What failed, why, what to do about it, and what to quote when asking for help.
    fn report(&self) -> String {
        let mut text = format!("{self}\n");
        let mut line = |name: &str, value: &str| text.push_str(&labelled(name, value));
        for cause in self.causes() {
            line("cause", &cause);
        }
        if let Some(next) = self.next_move() {
            line("next", &next);
        }
        if let Some(refusal) = self.refusal() {
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
            Self::Unreachable { url, source, .. } => vec![connection::explain(url, source).cause],
            Self::Unanswered { error, .. } => error.causes(),
            Self::TimedOut { seconds, .. } => vec![format!("the coordinator did not answer within {seconds} s")],
            Self::NotFound { cause, .. } | Self::Unreadable { cause, .. } => vec![cause.clone()],
            _ => telemetry::causes(self),
        }
    }

    fn next_move(&self) -> Option<String> {
        match self {
            Self::Usage { next, .. } | Self::NotFound { next, .. } | Self::Interrupted { next } => Some(next.clone()),
            Self::Refused { refusal, .. } => refusal.next_move(),
            Self::Unreachable { url, source, .. } => Some(connection::explain(url, source).next.into()),
            Self::Unanswered { key, error } => {
                let resend =
                    format!("to repeat the request without creating its tasks twice, add: --idempotency-key {key}");
                Some(error.next_move().into_iter().chain([resend]).collect::<Vec<_>>().join("\n"))
            }
            Self::TimedOut { .. } => Some(
                "a change may have been made nevertheless, see: oblet task list; or wait longer with --timeout".into(),
            ),
            Self::Unreadable { .. } => {
                Some("check that --url (OBLET_URL) names an oblet coordinator of this version".into())
            }
            Self::File { .. } => Some("check that the file exists and that you may read it".into()),
            Self::NotSaved { .. } => Some("check the permissions of the directory and the free space".into()),
            Self::Client(_) => Some("name the certificates to trust with --ca (OBLET_CA)".into()),
            Self::Unconfirmed { .. } | Self::Tasks(_) | Self::Unhealthy(_) | Self::AgentSilent(_) => None,
            Self::Runtime(_) | Self::Input(_) | Self::Output(_) | Self::OutputClosed => None,
        }
    }
}

/// The coordinator's code for a path that it does not know.
const NO_SUCH_PATH: i64 = 10998;

impl Refusal {
    fn exit_code(&self) -> u8 {
        match self.status.as_u16() {
            401 | 403 => 5,
            404 => 3,
            408 | 504 => 7,
            // Nothing is wrong with the request, but now is not the time for it.
            429 => 1,
            502 | 503 => 6,
            400..500 => 4,
            _ => 1,
        }
    }

    /// The coordinator's own advice, which knows the case; else what its status suggests.
    fn next_move(&self) -> Option<String> {
        let advice = self.next_move.as_deref().or_else(|| self.usual_move());
        let wait = self.retry_after_seconds.map(|seconds| format!("try again in {seconds} s"));
        match (advice, wait) {
            (Some(advice), Some(wait)) if self.next_move.is_some() => Some(format!("{advice}\n{wait}")),
            (_, Some(wait)) => Some(wait),
            (advice, None) => advice.map(ToOwned::to_owned),
        }
    }

    fn usual_move(&self) -> Option<&'static str> {
        Some(match self.status.as_u16() {
            300..400 => "check that --url (OBLET_URL) names the coordinator itself",
            400 | 422 => "correct the request and send it again",
            401 => "check --user (OBLET_USER) and the password",
            403 => "check that --url (OBLET_URL) names the coordinator itself: a proxy in between may refuse requests",
            404 if self.code == Some(NO_SUCH_PATH) => {
                "the coordinator may be older than this oblet: compare them with oblet version"
            }
            404 => "use the list command to see what exists",
            409 | 412 => "use the list and show commands to see what exists",
            429 | 502..=504 => "try again in a moment",
            500 => "search the coordinator's log for the trace id",
            _ => return None,
        })
    }
}
