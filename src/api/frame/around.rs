//! The frame around every request: trace id, log line, deadline, metrics, and the envelope around what comes out.

use super::{
    envelope::{Envelope, ErrorEnvelope, Frame, Outcome, ocp_time},
    error::{ApiError, code},
    state::ApiState,
};
use crate::{api::package::UPLOAD_ROUTE, coordinator::store::now_micros};
use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt as _;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::Instrument as _;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Names a request in the answer, in the log and in the tasks that it made.
#[derive(Debug, Clone)]
pub(in crate::api) struct TraceId(Arc<str>);

impl TraceId {
    pub(in crate::api) fn random() -> Self {
        let (_, low) = uuid::Uuid::now_v7().as_u64_pair();
        Self(format!("{low:016x}").into())
    }

    pub(in crate::api) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Requests by route, never by path, so that the number of series is bounded.
#[derive(Clone)]
pub(in crate::api) struct RequestMetrics {
    total: IntCounterVec,
    seconds: HistogramVec,
}

impl RequestMetrics {
    pub(in crate::api) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let labels = ["method", "route", "status"];
        let total = IntCounterVec::new(Opts::new("oblet_api_requests_total", "Requests that were answered."), &labels)?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("oblet_api_request_duration_seconds", "Time from a request to its answer."),
            &labels,
        )?;
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self { total, seconds })
    }

    fn observe(&self, method: &Method, route: &str, status: StatusCode, elapsed: Duration) {
        let method = match *method {
            Method::GET | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::HEAD => method.as_str(),
            _ => "other",
        };
        let labels = [method, route, status.as_str()];
        self.total.with_label_values(&labels).inc();
        self.seconds.with_label_values(&labels).observe(elapsed.as_secs_f64());
    }
}

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
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, code::UNKNOWN, "the request met a defect")
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
