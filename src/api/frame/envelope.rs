//! OCP's envelope around every answer. Handlers answer an [`Outcome`]; the frame around all routes writes it,
//! because only the frame knows the trace id and how long the request took.

use super::error::{ApiError, ErrorBody, Outcome};
use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// A success with data.
pub(in crate::api) struct Reply<T>(pub(in crate::api) T);

/// A success that has nothing to say.
pub(in crate::api) struct NoData;

impl<T: Serialize> IntoResponse for Reply<T> {
    fn into_response(self) -> Response {
        match serde_json::to_value(self.0) {
            Ok(value) => answer(Some(value)),
            Err(error) => ApiError::internal(&error).into_response(),
        }
    }
}

impl IntoResponse for NoData {
    fn into_response(self) -> Response {
        answer(None)
    }
}

fn answer(data: Option<Value>) -> Response {
    let mut response = StatusCode::OK.into_response();
    response.extensions_mut().insert(Outcome::Data(data));
    response
}

/// A successful response.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Envelope<T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) data: Option<T>,
    #[serde(flatten)]
    pub(in crate::api) frame: Frame,
}

/// A failed response.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct ErrorEnvelope {
    pub(in crate::api) error: ErrorBody,
    #[serde(flatten)]
    pub(in crate::api) frame: Frame,
}

/// Fields of every response.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Frame {
    pub(in crate::api) successful: bool,
    /// Time of the response, with the server's offset from UTC.
    #[schema(format = "date-time")]
    pub(in crate::api) timestamp: String,
    /// Milliseconds.
    pub(in crate::api) duration: u64,
    /// HTTP status.
    pub(in crate::api) status: u16,
    /// 16 hexadecimal digits that identify the request in the server's log.
    pub(in crate::api) trace_id: String,
    /// Host that answered.
    pub(in crate::api) server: String,
}

/// A list without pages.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct Contents<T> {
    pub(in crate::api) contents: Vec<T>,
}

/// One page of a list.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct Page<T> {
    pub(in crate::api) contents: Vec<T>,
    pub(in crate::api) page: PageInfo,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct PageInfo {
    /// From 1.
    pub(in crate::api) number: i64,
    pub(in crate::api) size: i64,
    pub(in crate::api) total_elements: i64,
    pub(in crate::api) total_pages: i64,
}

/// A point in time as OCP prints it: `2021-09-03T16:25:08.004+08:00`, in the server's own zone.
pub(in crate::api) fn ocp_time(micros: i64) -> String {
    let time = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_time_has_milliseconds_and_an_offset() {
        let text = super::ocp_time(1_630_657_508_004_000);
        assert_eq!(text.len(), "2021-09-03T16:25:08.004+08:00".len());
        assert!(text.contains(".004"), "{text}");
        assert_eq!(text.parse::<jiff::Timestamp>().unwrap().as_microsecond(), 1_630_657_508_004_000);
    }
}
