//! Query parameters of requests that change something: unlike those of lists, none is ignored, so that a misspelt
//! `dryRun` never acts.

use super::error::ApiError;
use axum::{
    extract::{FromRequestParts, MatchedPath, Query, Request},
    http::{Method, Uri, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

const DRY_RUN: &str = "dryRun";
/// Routes whose handlers take a [`DryRun`].
const DRY_RUN_ROUTES: [&str; 2] = ["/api/v2/obproxy/clusters", "/api/v2/obproxy/clusters/{id}/obproxies/batchAdd"];

/// Whether everything is to be checked and answered, and nothing written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DryRun(pub(super) bool);

impl<S: Send + Sync> FromRequestParts<S> for DryRun {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let values: Vec<String> =
            pairs(&parts.uri)?.into_iter().filter(|(key, _)| key == DRY_RUN).map(|(_, value)| value).collect();
        match values.as_slice() {
            [] => Ok(Self(false)),
            [value] => value.parse().map(Self).map_err(|_not_bool| wrong()),
            _ => Err(wrong()),
        }
    }
}

fn wrong() -> ApiError {
    ApiError::invalid(DRY_RUN, "is given once, as true or false").advise("nothing was changed; correct the query")
}

fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, ApiError> {
    let Query(pairs) = Query::try_from_uri(uri).map_err(|error| ApiError::invalid("query", error.body_text()))?;
    Ok(pairs)
}

/// Refuses every parameter that the route does not know, unless the request only reads.
pub(super) async fn refuse_unknown(matched: MatchedPath, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let plans = *request.method() == Method::POST && DRY_RUN_ROUTES.contains(&matched.as_str());
    match pairs(request.uri()) {
        Ok(pairs) => match pairs.iter().find(|(key, _)| !plans || key != DRY_RUN) {
            None => next.run(request).await,
            Some((key, _)) => unknown(key, plans).into_response(),
        },
        Err(error) => error.into_response(),
    }
}

fn unknown(key: &str, plans: bool) -> ApiError {
    let known = if plans { "only dryRun is" } else { "none is" };
    ApiError::invalid(key, format_args!("is no query parameter that this request takes; {known}"))
        .advise("nothing was changed; correct the query")
}
