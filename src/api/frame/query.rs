//! Query parameters of requests that change something: unlike those of lists, none is ignored, so that a misspelt
//! `dryRun` never acts.

use super::error::ApiError;
use axum::{
    extract::{FromRequestParts, MatchedPath, Query, Request, State},
    http::{Method, Uri, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use std::{collections::HashMap, sync::Arc};
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

/// The query parameters that each route knows, by its method and path.
pub(in crate::api) type Known = Arc<HashMap<(Method, String), Vec<String>>>;

pub(in crate::api) fn known(described: &OpenApi) -> Known {
    let names = |operation: &Operation| {
        let parameters = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
            RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => Some(parameter.name.clone()),
            RefOr::T(_) | RefOr::Ref(_) => None,
        });
        parameters.collect::<Vec<String>>()
    };
    let mut known = HashMap::new();
    for (path, item) in &described.paths.paths {
        let operations = [
            (Method::POST, &item.post),
            (Method::PUT, &item.put),
            (Method::PATCH, &item.patch),
            (Method::DELETE, &item.delete),
        ];
        // Some are served without their prefix as well.
        let bare = path.strip_prefix("/api/v2").unwrap_or(path);
        for (method, operation) in operations.into_iter().filter_map(|(method, of)| Some((method, of.as_ref()?))) {
            let names = names(operation);
            known.extend([path.as_str(), bare].map(|path| ((method.clone(), path.to_owned()), names.clone())));
        }
    }
    Arc::new(known)
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
    State(known): State<Known>,
    matched: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let known = known.get(&(request.method().clone(), matched.as_str().to_owned())).map_or(&[][..], Vec::as_slice);
    match pairs(request.uri()) {
        Ok(pairs) => match pairs.iter().find(|(key, _)| !known.contains(key)) {
            None => next.run(request).await,
            Some((key, _)) => unknown(key, known).into_response(),
        },
        Err(error) => error.into_response(),
    }
}

fn unknown(key: &str, known: &[String]) -> ApiError {
    let known = match known {
        [] => "none is".to_owned(),
        [only] => format!("only {only} is"),
        [all @ .., last] => format!("only {} and {last} are", all.join(", ")),
    };
    ApiError::invalid(key, format_args!("is not a query parameter of this request; {known}"))
        .advise("nothing was changed; correct the query")
}
