use crate::steps::FieldViolation;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

const DOMAIN: &str = "oblet.agent";

/// Why the agent refuses a call. One exhaustive table turns it into a status with rich details.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the request is wrong: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    BadRequest(Vec<FieldViolation>),
    #[error("operation {operation_id} attempt {attempt} was submitted before with another content")]
    OtherContent { operation_id: String, attempt: u32 },
    #[error("epoch {given} is older than epoch {highest}, which this agent has seen: another coordinator took over")]
    StaleEpoch { given: u64, highest: u64 },
    #[error("{lock} is held by operation {holder}")]
    Locked { lock: String, holder: String },
    #[error("{what} is not known to this agent")]
    NotFound { what: String },
    #[error("{subject} {problem}")]
    Precondition { reason: &'static str, subject: String, problem: String },
    #[error("{what} is still being stopped: ask again")]
    StillStopping { what: String },
    #[error("the agent is shutting down")]
    Draining,
    #[error("the agent's disk is full: {0}")]
    DiskFull(String),
    #[error("the agent cannot do that: {0}")]
    Internal(String),
}

impl Refused {
    fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "BAD_REQUEST",
            Self::OtherContent { .. } => "OTHER_CONTENT",
            Self::StaleEpoch { .. } => "STALE_EPOCH",
            Self::Locked { .. } => "LOCKED",
            Self::NotFound { .. } => "NOT_FOUND",
            Self::Precondition { reason, .. } => reason,
            Self::StillStopping { .. } => "STILL_STOPPING",
            Self::Draining => "DRAINING",
            Self::DiskFull(_) => "DISK_FULL",
            Self::Internal(_) => "INTERNAL",
        }
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let mut details = ErrorDetails::with_error_info(refused.reason(), DOMAIN, []);
        let code = match &refused {
            Refused::BadRequest(violations) => {
                for violation in violations {
                    details.add_bad_request_violation(&violation.field, &violation.problem);
                }
                Code::InvalidArgument
            }
            Refused::OtherContent { .. } => Code::AlreadyExists,
            Refused::StaleEpoch { highest, .. } => {
                details.add_precondition_failure_violation("STALE_EPOCH", "epoch", format!("highest seen: {highest}"));
                Code::FailedPrecondition
            }
            Refused::Locked { holder, .. } => {
                details.set_retry_info(Some(Duration::from_secs(1)));
                details.set_resource_info("operation", holder, "", "holds the lock");
                Code::Aborted
            }
            Refused::NotFound { .. } => Code::NotFound,
            Refused::Precondition { reason, subject, problem } => {
                details.add_precondition_failure_violation(*reason, subject, problem);
                Code::FailedPrecondition
            }
            Refused::StillStopping { .. } | Refused::Draining => {
                details.set_retry_info(Some(Duration::from_secs(1)));
                Code::Unavailable
            }
            Refused::DiskFull(_) => Code::ResourceExhausted,
            Refused::Internal(_) => Code::Internal,
        };
        Self::with_error_details(code, refused.to_string(), details)
    }
}

/// The stable reason that an agent put into a status, if it is one of an agent.
pub fn fault_reason(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == DOMAIN).then_some(info.reason)
}

/// Whether the agent finds fault with this field of the request.
pub fn violates(status: &Status, field: &str) -> bool {
    let details = status.get_details_bad_request();
    details.is_some_and(|details| details.field_violations.iter().any(|violation| violation.field == field))
}
