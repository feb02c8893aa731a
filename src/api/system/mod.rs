//! What the coordinator says of itself: version, clock, health, metrics, its own description.

pub(super) mod audit;
pub(super) mod scrape_token;
pub(super) mod targets;

use super::frame::{
    envelope::{Envelope, Reply, ocp_time},
    error::ApiError,
    state::ApiState,
};
use crate::coordinator::store::now_micros;
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use prometheus::TextEncoder;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Needs no password.
pub(super) fn public_router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(time))
        .routes(routes!(healthy))
        .routes(routes!(ready))
        .routes(routes!(metrics))
        .routes(routes!(openapi))
}

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(info)).merge(audit::router()).merge(targets::router())
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Info {
    product: &'static str,
    build_version: &'static str,
}

/// Returns the name and version of the program.
#[utoipa::path(
    get, path = "/api/v2/info", tag = "system", operation_id = "getInfo",
    responses((status = 200, description = "Done.", body = Envelope<Info>)),
)]
async fn info() -> Reply<Info> {
    Reply(Info { product: env!("CARGO_PKG_NAME"), build_version: env!("CARGO_PKG_VERSION") })
}

/// Returns the coordinator's time.
#[utoipa::path(
    get, path = "/api/v2/time", tag = "system", operation_id = "getTime", security(),
    responses((status = 200, description = "Done.", body = String, content_type = "text/plain")),
)]
async fn time() -> String {
    ocp_time(now_micros())
}

/// The process is running.
#[utoipa::path(
    get, path = "/-/healthy", tag = "system", operation_id = "healthy", security(),
    responses((status = 200, description = "Done.", body = String, content_type = "text/plain")),
)]
async fn healthy() -> &'static str {
    "healthy\n"
}

/// Unfinished tasks are resumed and requests are served.
#[utoipa::path(
    get, path = "/-/ready", tag = "system", operation_id = "ready", security(),
    responses(
        (status = 200, description = "Done.", body = String, content_type = "text/plain"),
        (status = 503, description = "Not ready yet, or shutting down.", body = String, content_type = "text/plain"),
    ),
)]
async fn ready(State(state): State<ApiState>) -> (StatusCode, &'static str) {
    if state.engine().is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

/// Metrics of the coordinator in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "system", operation_id = "metrics", security(),
    responses((status = 200, description = "Done.", body = String, content_type = "text/plain; version=0.0.4")),
)]
async fn metrics(State(state): State<ApiState>) -> Response {
    match TextEncoder::new().encode_to_string(&state.settings.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => ApiError::internal(&error).into_response(),
    }
}

/// Returns this description.
#[utoipa::path(
    get, path = "/api/openapi.json", tag = "system", operation_id = "openapi", security(),
    responses((status = 200, description = "An OpenAPI document.", content_type = "application/json")),
)]
async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(super::openapi())
}
