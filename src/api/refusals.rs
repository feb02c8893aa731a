//! Refusals that any guarded request may meet, described in one place.

use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder,
    path::Operation,
    schema::{ObjectBuilder, Type},
};

const TOO_MANY: &str = "TooManyLogins";
const CROSS_SITE: &str = "CrossSite";

fn response(text: &str) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorEnvelope"))).build();
    ResponseBuilder::new().description(text).content("application/json", content)
}

fn responses() -> [(&'static str, Response); 2] {
    let seconds = HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(Type::Integer).build()))
        .description(Some("Seconds after which the request is worth sending again."))
        .build();
    let too_many = response(
        "Too many logins of the user, or of anybody at the address, have failed; or too many wait to be checked.",
    );
    [
        (TOO_MANY, too_many.header("Retry-After", seconds).build()),
        (CROSS_SITE, response("A browser says that a page of another site asks for it.").build()),
    ]
}

/// Adds them to every operation that does not describe the status itself.
pub(super) fn describe(described: &mut OpenApi) {
    let components = described.components.get_or_insert_default();
    components.responses.extend(responses().map(|(name, response)| (name.to_owned(), RefOr::T(response))));
    for item in described.paths.paths.values_mut() {
        let changes = [&mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in changes.into_iter().flatten() {
            add(operation, "403", CROSS_SITE);
            add(operation, "429", TOO_MANY);
        }
        if let Some(operation) = &mut item.get {
            add(operation, "429", TOO_MANY);
        }
    }
}

fn add(operation: &mut Operation, status: &str, name: &str) {
    let answers = &mut operation.responses.responses;
    answers.entry(status.to_owned()).or_insert_with(|| RefOr::Ref(Ref::from_response_name(name)));
}
