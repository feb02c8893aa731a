//! The frame around every request: trace id, log line, deadline, metrics, and the envelope around what comes out.

use super::{
    envelope::{Envelope, ErrorEnvelope, Frame, ocp_time},
    error::{ApiError, Outcome, code},
    state::ApiState,
    trace::TraceId,
};
use crate::coordinator::store::now_micros;
use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt as _;
use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};
use tracing::Instrument as _;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A package takes as long as it takes to come in.
pub(in crate::api) const UPLOAD_ROUTE: &str = "/api/v2/software-packages";

pub(in crate::api) async fn frame(
    State(state): State<ApiState>,
    matched: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let trace = TraceId::random();
    let method = request.method().clone();
    let route = matched.as_ref().map_or("unmatched", MatchedPath::as_str);
    let span = tracing::info_span!("request", trace_id = %trace, %method, path = request.uri().path());
    request.extensions_mut().insert(trace.clone());
    // An upload may take long; it has a deadline per chunk instead.
    let limit = if method == Method::POST && route == UPLOAD_ROUTE { Duration::MAX } else { REQUEST_TIMEOUT };

    let reads = matches!(method, Method::GET | Method::HEAD);

    let response = async {
        let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
        let response = match tokio::time::timeout(limit, answer).await {
            Ok(Ok(response)) => response,
            Ok(Err(_panic)) => {
                tracing::error!("a request made the coordinator panic");
                ApiError::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    code::UNKNOWN,
                    "the request failed because of an internal error",
                )
                .advise("report the trace id and the lines of the log that carry it")
                .into_response()
            }
            Err(_elapsed) => ApiError::new(
                StatusCode::GATEWAY_TIMEOUT,
                code::TIMED_OUT,
                format_args!("the request took longer than {} s", limit.as_secs()),
            )
            .advise("ask whether it took effect before you send it again")
            .into_response(),
        };
        let (status, elapsed_ms) = (response.status().as_u16(), millis(started));
        // Pollers ask all day: what they are told stands in the metrics.
        if reads && response.status().is_success() {
            tracing::debug!(status, elapsed_ms, "answered");
        } else {
            tracing::info!(status, elapsed_ms, "answered");
        }
        response
    }
    .instrument(span)
    .await;

    state.metrics.observe(&method, route, response.status(), started.elapsed());
    write_envelope(response, &state, &trace, started)
}

fn millis(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Leaves alone what brings its own format, such as metrics.
fn write_envelope(response: Response, state: &ApiState, trace: &TraceId, started: Instant) -> Response {
    let (mut parts, body) = response.into_parts();
    let Some(outcome) = parts.extensions.remove::<Outcome>() else {
        return Response::from_parts(parts, body);
    };
    let frame = Frame {
        successful: parts.status.is_success(),
        timestamp: ocp_time(now_micros()),
        duration: millis(started),
        status: parts.status.as_u16(),
        trace_id: trace.to_string(),
        server: state.server.to_string(),
    };
    let text = match outcome {
        Outcome::Data(data) => serde_json::to_vec(&Envelope { data, frame }),
        Outcome::Error(error) => serde_json::to_vec(&ErrorEnvelope { error, frame }),
    };
    match text {
        Ok(text) => {
            parts.headers.remove(header::CONTENT_LENGTH);
            parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Response::from_parts(parts, Body::from(text))
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
