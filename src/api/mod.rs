//! The REST API, in the wire format of OCP v2. One room per subject; what is on the wire is defined here only.

mod agent;
mod frame;
mod host;
mod obproxy;
mod package;
pub mod serve;
mod system;
mod task;
mod user;

#[cfg(test)]
pub(crate) use frame::commit::whole;
pub use frame::state::{ApiSettings, ApiState, Silence, TaskEngine};
pub use obproxy::config_service::config_service_router;
pub use package::upload::clean_uploads;
pub use system::scrape_token::ScrapeToken;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    middleware::{from_fn, from_fn_with_state},
};
use frame::{
    auth, cross_site,
    error::{ApiError, code},
    linger, query, refusals,
};
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
        .route_layer(from_fn_with_state(query::known(&openapi()), query::refuse_unknown))
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
        .layer(from_fn_with_state(state.clone(), frame::around::frame))
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
    let mut router = system::public_router().merge(agent::public_router());
    refusals::describe(router.get_openapi_mut(), refusals::Access::Anybody);
    router
}

fn guarded_router() -> OpenApiRouter<ApiState> {
    let mut router = OpenApiRouter::with_openapi(base())
        .merge(host::router())
        .merge(agent::router())
        .merge(package::router())
        .merge(obproxy::router())
        .merge(task::router())
        .merge(user::router())
        .merge(system::router());
    refusals::describe(router.get_openapi_mut(), refusals::Access::Users);
    router
}

fn base() -> OpenApi {
    let http = |scheme: HttpAuthScheme| SecurityScheme::Http(HttpBuilder::new().scheme(scheme).build());
    let components = ComponentsBuilder::new()
        .security_scheme("basic", http(HttpAuthScheme::Basic))
        .security_scheme("scrapeToken", http(HttpAuthScheme::Bearer));
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("oblet coordinator")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(DESCRIPTION))
                .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
                .build(),
        )
        .components(Some(components.build()))
        .security(Some([SecurityRequirement::new("basic", Vec::<String>::new())]))
        .build()
}

const DESCRIPTION: &str = "\
OceanBase hosts and proxies, in the wire format of the OceanBase Cloud Platform (OCP) v2 API.

Differences from OCP: a host's agent is installed and enrolled by its administrator, and only checked when the host is added; \
a failed subtask says why and what to do next, and a waiting one for what it waits; errors carry `nextMove`; whatever \
changes something can be tried with `dryRun=true`, and what makes tasks can be sent again with an `Idempotency-Key`.";
