//! Query parameters of requests that change something: unlike those of lists, none is ignored, so that a misspelt
//! `dryRun` never acts.

use super::error::ApiError;
use axum::{
    extract::{FromRequestParts, MatchedPath, Query, Request, State},
    http::{Method, Uri, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use std::{collections::HashSet, sync::Arc};
use utoipa::{
    IntoParams,
    openapi::{
        OpenApi, RefOr, Required,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn},
        schema::{ObjectBuilder, Type},
    },
};

const DRY_RUN: &str = "dryRun";

/// Whether everything is to be checked and answered, and nothing written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) struct DryRun(pub(in crate::api) bool);

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

/// A route that names it among its parameters is one whose handler takes it.
impl IntoParams for DryRun {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let parameter = ParameterBuilder::new()
            .name(DRY_RUN)
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some("Checks the request and returns the expected result without changing anything."))
            .schema(Some(ObjectBuilder::new().schema_type(Type::Boolean)));
        vec![parameter.build()]
    }
}

/// Method and path of every route that takes a [`DryRun`].
pub(in crate::api) type Planners = Arc<HashSet<(Method, String)>>;

pub(in crate::api) fn planners(described: &OpenApi) -> Planners {
    let takes = |operation: &Operation| {
        let mut parameters = operation.parameters.iter().flatten();
        parameters.any(|parameter| matches!(parameter, RefOr::T(parameter) if parameter.name == DRY_RUN))
    };
    let mut planners = HashSet::new();
    for (path, item) in &described.paths.paths {
        let operations = [
            (Method::POST, &item.post),
            (Method::PUT, &item.put),
            (Method::PATCH, &item.patch),
            (Method::DELETE, &item.delete),
        ];
        let taking = operations.into_iter().filter(|(_, operation)| operation.as_ref().is_some_and(takes));
        // Some are served without their prefix as well.
        let bare = path.strip_prefix("/api/v2").unwrap_or(path);
        planners
            .extend(taking.flat_map(|(method, _)| [path.as_str(), bare].map(|path| (method.clone(), path.to_owned()))));
    }
    Arc::new(planners)
}

fn wrong() -> ApiError {
    ApiError::invalid(DRY_RUN, "is given once, as true or false").advise("nothing was changed; correct the query")
}

fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, ApiError> {
    let Query(pairs) = Query::try_from_uri(uri).map_err(|error| ApiError::invalid("query", error.body_text()))?;
    Ok(pairs)
}

/// Refuses every parameter that the route does not know, unless the request only reads.
pub(in crate::api) async fn refuse_unknown(
    State(planners): State<Planners>,
    matched: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let plans = planners.contains(&(request.method().clone(), matched.as_str().to_owned()));
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
    ApiError::invalid(key, format_args!("is not a query parameter of this request; {known}"))
        .advise("nothing was changed; correct the query")
}
