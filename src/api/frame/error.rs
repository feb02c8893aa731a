//! Errors as a client sees them: OCP's numeric code, a message that begins with OCP's code, and what to do next.

use crate::{
    coordinator::store::{StoreError, locks::Holder},
    graph::TaskStatus,
    operations::ObjectKind,
    telemetry::chain,
};
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;
use std::{error::Error, num::NonZeroU16, time::Duration};
use utoipa::ToSchema;

/// Codes of OCP's published table that fit more than one resource.
pub(in crate::api) mod code {
    pub(crate) const INVALID_PARAMETER: &str = "COM10001";
    pub(crate) const INVALID_REQUEST: &str = "COM10003";
    pub(crate) const TIMED_OUT: &str = "COM10004";
    pub(crate) const NAME_TAKEN: &str = "COM10006";
    pub(crate) const METHOD_NOT_SUPPORTED: &str = "COM10008";
    pub(crate) const NOT_SORTABLE: &str = "COM10011";
    pub(crate) const NOT_IMPLEMENTED: &str = "COM10998";
    pub(crate) const UNKNOWN: &str = "COM10999";
}

/// An answer that is not a success.
#[derive(Debug, Clone)]
pub(in crate::api) struct ApiError {
    pub(in crate::api) status: StatusCode,
    pub(in crate::api) body: ErrorBody,
    retry_after_seconds: Option<NonZeroU16>,
}

/// What `Retry-After` says where waiting helps and nobody knows for how long.
const SOON: Duration = Duration::from_secs(5);

/// The member `error` of an envelope.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct ErrorBody {
    /// Digits of the code that the message begins with.
    code: i32,
    message: String,
    /// The field that the error is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sub_errors: Vec<SubError>,
    /// What to do about it. Not part of OCP's responses.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_move: Option<String>,
}

/// What a handler hands to the frame.
#[derive(Clone)]
pub(in crate::api) enum Outcome {
    Data(Option<Value>),
    Error(ErrorBody),
}

/// One of several errors in a request.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct SubError {
    pub(in crate::api) field: String,
    pub(in crate::api) message: String,
}

impl ApiError {
    pub(in crate::api) fn new(status: StatusCode, code: &str, message: impl std::fmt::Display) -> Self {
        let digits = code.trim_start_matches(|c: char| c.is_ascii_uppercase());
        let body = ErrorBody {
            code: digits.parse().unwrap_or(0),
            message: format!("{code}: {message}"),
            target: None,
            sub_errors: Vec::new(),
            next_move: None,
        };
        Self { status, body, retry_after_seconds: None }
    }

    /// 503: the same request may succeed in a few seconds.
    pub(in crate::api) fn try_later(message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code::UNKNOWN, message).retry_after(SOON)
    }

    /// Says when it is worth sending the request again.
    pub(in crate::api) fn retry_after(mut self, time: Duration) -> Self {
        // In whole seconds, and not before the time is over.
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        self.retry_after_seconds = NonZeroU16::new(seconds.try_into().unwrap_or(u16::MAX));
        self
    }

    /// 400 because of one field.
    pub(in crate::api) fn invalid(field: &str, why: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code::INVALID_PARAMETER, format_args!("{field}: {why}")).about(field)
    }

    pub(in crate::api) fn not_found(code: &str, message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    pub(in crate::api) fn conflict(code: &str, message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 500; the cause goes to the log, which the client finds by the trace id.
    pub(in crate::api) fn internal(cause: &(dyn Error + 'static)) -> Self {
        tracing::error!(error = chain(cause), "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, code::UNKNOWN, "the coordinator could not carry out the request")
            .advise("look for the trace id in the coordinator's log")
    }

    pub(in crate::api) fn about(mut self, field: &str) -> Self {
        self.body.target = Some(field.to_owned());
        self
    }

    pub(in crate::api) fn advise(mut self, next_move: impl Into<String>) -> Self {
        self.body.next_move = Some(next_move.into());
        self
    }

    pub(in crate::api) fn with_sub_errors(mut self, sub_errors: Vec<SubError>) -> Self {
        self.body.sub_errors = sub_errors;
        self
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let failure = Self::internal(&error);
        match error {
            StoreError::DiskFull(_) => {
                Self::try_later("the store's disk is full, so nothing is changed; what is there can be read")
                    .advise("free space on the coordinator's host, then send the request again")
            }
            StoreError::Busy => {
                Self::try_later("too much is being written").advise("nothing was changed; send the request again")
            }
            StoreError::Sql(_) | StoreError::Migrate(_) | StoreError::File { .. } | StoreError::Damaged { .. } => {
                failure
            }
        }
    }
}

/// 409: names who has the object, and the ways to get it free.
impl From<Holder> for ApiError {
    fn from(holder: Holder) -> Self {
        let code = match holder.lock.kind {
            ObjectKind::Host => "CMP07004",
            ObjectKind::ObproxyCluster => "ODP21010",
            ObjectKind::Obproxy => "ODP21016",
        };
        let task = holder.task;
        let next_move = match holder.status {
            TaskStatus::Running => format!("wait until task {task} has ended: oblet task watch {task}"),
            TaskStatus::Failed => format!(
                "retry task {task} or roll it back; if that cannot be, release what it has with: \
                 oblet task unlock {task}"
            ),
            TaskStatus::Successful => "send the request again".to_owned(),
        };
        Self::conflict(code, holder).advise(next_move)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.get()));
        }
        response.extensions_mut().insert(Outcome::Error(self.body));
        response
    }
}
