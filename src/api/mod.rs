//! The REST API, in the wire format of OCP v2. One file per resource; what is on the wire is defined here only.

mod audit;
mod auth;
mod commit;
mod config_service;
mod cross_site;
mod enroll;
mod enrolment_tokens;
mod envelope;
mod error;
mod extract;
mod frame;
mod guard;
mod host_agent;
mod host_agent_commands;
mod host_agent_upgrade;
mod host_creation;
mod host_epoch;
mod host_trust;
mod hosts;
mod install;
mod linger;
pub mod live;
mod log_stream;
mod obproxy;
mod obproxy_view;
mod once;
mod own_certificates;
mod packages;
mod places;
mod profile;
mod query;
mod refusals;
mod requester;
pub mod serve;
mod state;
mod streams;
mod system;
mod targets;
mod task_commands;
mod task_locks;
mod task_stream;
mod task_view;
mod tasks;
mod upload;

pub use config_service::config_service_router;
pub use state::{ApiSettings, ApiState, BoxFuture, Silence, TaskEngine};
pub use upload::clean_uploads;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    middleware::{from_fn, from_fn_with_state},
};
use error::{ApiError, code};
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder,
    security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};
use utoipa_axum::router::OpenApiRouter;

const MAX_BODY_BYTES: usize = 1 << 20;

/// All routes. Serve it with `into_make_service_with_connect_info::<SocketAddr>()`, or failed logins are counted
/// without regard to where they come from.
pub fn router(state: ApiState) -> Router {
    let guarded = guarded_router()
        .route_layer(from_fn_with_state(query::planners(&openapi()), query::refuse_unknown))
        .route_layer(from_fn_with_state(state.clone(), auth::authenticate));
    let (router, _) = guarded.merge(public_router()).split_for_parts();
    router
        .fallback(|| async {
            ApiError::new(StatusCode::NOT_FOUND, code::NOT_IMPLEMENTED, "there is nothing under this path")
        })
        .method_not_allowed_fallback(|| async {
            let text = "the path does not support this method";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, code::METHOD_NOT_SUPPORTED, text)
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn(cross_site::refuse))
        .layer(from_fn_with_state(state.clone(), frame::frame))
        .layer(from_fn(linger::linger))
        .with_state(state)
}

/// The description of all routes.
pub fn openapi() -> OpenApi {
    let (_, described) = guarded_router().merge(public_router()).split_for_parts();
    described
}

/// What needs no user.
fn public_router() -> OpenApiRouter<ApiState> {
    let mut router = system::public_router().merge(enroll::router());
    refusals::describe(router.get_openapi_mut(), refusals::Access::Anybody);
    router
}

fn guarded_router() -> OpenApiRouter<ApiState> {
    let mut router = OpenApiRouter::with_openapi(base())
        .merge(hosts::router())
        .merge(host_creation::router())
        .merge(host_agent::router())
        .merge(enrolment_tokens::router())
        .merge(host_trust::router())
        .merge(host_agent_commands::router())
        .merge(host_agent_upgrade::router())
        .merge(host_epoch::router())
        .merge(packages::router())
        .merge(places::router())
        .merge(profile::router())
        .merge(obproxy::router())
        .merge(tasks::router())
        .merge(task_commands::router())
        .merge(task_locks::router())
        .merge(task_stream::router())
        .merge(log_stream::router())
        .merge(audit::router())
        .merge(targets::router())
        .merge(system::router());
    refusals::describe(router.get_openapi_mut(), refusals::Access::Users);
    router
}

fn base() -> OpenApi {
    let basic = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Basic).build());
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("oblet coordinator")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(DESCRIPTION))
                .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
                .build(),
        )
        .components(Some(ComponentsBuilder::new().security_scheme("basic", basic).build()))
        .security(Some([SecurityRequirement::new("basic", Vec::<String>::new())]))
        .build()
}

const DESCRIPTION: &str = "\
OceanBase hosts and proxies, in the wire format of the OceanBase Cloud Platform (OCP) v2 API.

Differences from OCP: a host's agent is installed and enrolled by its administrator, and only checked when the host is added; \
a failed subtask says why and what to do next, and a waiting one for what it waits; errors carry `nextMove`; whatever \
changes something can be tried with `dryRun=true`, and what makes tasks can be sent again with an `Idempotency-Key`.";
