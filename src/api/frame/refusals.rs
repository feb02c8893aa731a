//! What any request may be answered, and how parameters are bounded that many requests have: described in one place.

use super::extract::Paging;
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder,
    path::{HttpMethod, Operation, ParameterIn, PathItem},
    request_body::RequestBody,
    schema::{ObjectBuilder, Schema, Type},
};

/// Who may send a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Access {
    Users,
    Anybody,
}

/// A refusal under its name among the components.
struct Refusal {
    status: &'static str,
    name: &'static str,
    text: &'static str,
    /// Says when the request is worth sending again.
    retry_after: bool,
}

const BAD_REQUEST: Refusal =
    refusal("400", "BadRequest", "A parameter, a field or the body is missing, invalid or unknown.");
const NO_USER: Refusal = refusal("401", "NoUser", "The request names no user, or the password is wrong.");
const CROSS_SITE: Refusal = refusal("403", "CrossSite", "A browser sent the request from a page of another site.");
const KEY_USED: Refusal = refusal("409", "KeyUsed", "The Idempotency-Key was used for another request.");
const TOO_LARGE: Refusal = refusal("413", "TooLarge", "The body is larger than 1 MiB.");
const WRONG_TYPE: Refusal = refusal("415", "WrongType", "The operation does not accept this Content-Type.");
const TOO_MANY: Refusal = Refusal {
    retry_after: true,
    ..refusal(
        "429",
        "TooManyLogins",
        "Too many failed logins of this user or from this address, or too many logins at the same time.",
    )
};
const DEFECT: Refusal =
    refusal("500", "Defect", "Internal error. The coordinator's log has the details under the trace id.");
const TRY_LATER: Refusal = Refusal {
    retry_after: true,
    ..refusal("503", "TryLater", "The store is busy or its disk is full; nothing was changed.")
};
const TOO_LATE: Refusal = refusal("504", "TooLate", "The request took longer than a minute; it may have taken effect.");

const ALL: [&Refusal; 10] = [
    &BAD_REQUEST,
    &NO_USER,
    &CROSS_SITE,
    &KEY_USED,
    &TOO_LARGE,
    &WRONG_TYPE,
    &TOO_MANY,
    &DEFECT,
    &TRY_LATER,
    &TOO_LATE,
];

const fn refusal(status: &'static str, name: &'static str, text: &'static str) -> Refusal {
    Refusal { status, name, text, retry_after: false }
}

impl Refusal {
    fn response(&self) -> Response {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorEnvelope"))).build();
        let response = ResponseBuilder::new().description(self.text).content("application/json", content);
        if !self.retry_after {
            return response.build();
        }
        let seconds = HeaderBuilder::new()
            .schema(Some(ObjectBuilder::new().schema_type(Type::Integer).build()))
            .description(Some("Seconds to wait before the request is sent again."))
            .build();
        response.header("Retry-After", seconds).build()
    }

    /// Unless the operation describes the status itself.
    fn add(&self, operation: &mut Operation) {
        let answers = &mut operation.responses.responses;
        answers.entry(self.status.to_owned()).or_insert_with(|| RefOr::Ref(Ref::from_response_name(self.name)));
    }
}

/// Adds to every operation what it may be answered besides its own.
pub(in crate::api) fn describe(described: &mut OpenApi, access: Access) {
    let components = described.components.get_or_insert_default();
    components.responses.extend(ALL.map(|refusal| (refusal.name.to_owned(), RefOr::T(refusal.response()))));
    for item in described.paths.paths.values_mut() {
        for (method, operation) in operations(item) {
            bound_parameters(operation);
            let reads = method == HttpMethod::Get;
            let is_json = |body: &RefOr<RequestBody>| matches!(body, RefOr::T(body) if body.content.contains_key("application/json"));
            let json = operation.request_body.as_ref().is_some_and(is_json);
            let asks = !reads || operation.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty());
            let mut parameters = operation.parameters.iter().flatten();
            let has_key = parameters.any(|item| matches!(item, RefOr::T(item) if item.name == "Idempotency-Key"));
            let may = [
                (&BAD_REQUEST, asks),
                (&NO_USER, access == Access::Users),
                (&CROSS_SITE, !reads),
                (&KEY_USED, has_key),
                (&TOO_LARGE, json),
                (&WRONG_TYPE, operation.request_body.is_some()),
                (&TOO_MANY, access == Access::Users),
                (&DEFECT, true),
                (&TRY_LATER, true),
                (&TOO_LATE, true),
            ];
            may.into_iter().filter(|(_, may)| *may).for_each(|(refusal, _)| refusal.add(operation));
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    [
        (HttpMethod::Get, &mut item.get),
        (HttpMethod::Post, &mut item.post),
        (HttpMethod::Put, &mut item.put),
        (HttpMethod::Patch, &mut item.patch),
        (HttpMethod::Delete, &mut item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// As [`Paging`] checks them.
fn bound_parameters(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(parameter) = parameter else { continue };
        let (largest, default) = match (&parameter.parameter_in, parameter.name.as_str()) {
            (ParameterIn::Query, "page") => (None, 1),
            (ParameterIn::Query, "size") => (Some(Paging::MAX_SIZE), Paging::DEFAULT_SIZE),
            _ => continue,
        };
        let schema = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(largest);
        parameter.schema = Some(RefOr::T(Schema::Object(schema.default(Some(default.into())).build())));
    }
}
