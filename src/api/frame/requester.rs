//! Who sends a request, under which trace id; what they change is written to the audit log under both.

use super::{auth::Caller, error::ApiError, trace::TraceId};
use crate::coordinator::store::{
    StoreError,
    audit::{self, Change},
};
use axum::{Extension, extract::FromRequestParts, http::request::Parts};
use sqlx::AnyConnection;

pub(in crate::api) struct Requester {
    pub(in crate::api) name: String,
    pub(in crate::api) trace: TraceId,
}

impl<S: Send + Sync> FromRequestParts<S> for Requester {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let caller = Extension::<Caller>::from_request_parts(parts, state).await;
        let trace = Extension::<TraceId>::from_request_parts(parts, state).await;
        match (caller, trace) {
            (Ok(Extension(caller)), Ok(Extension(trace))) => Ok(Self { name: caller.name, trace }),
            (Err(error), _) | (_, Err(error)) => Err(ApiError::internal(&error)),
        }
    }
}

impl Requester {
    /// Writes down what is changed, in the transaction that changes it.
    pub(in crate::api) async fn audit(
        &self,
        connection: &mut AnyConnection,
        action: &str,
        object: &str,
        detail: &str,
    ) -> Result<(), StoreError> {
        self.audit_all(connection, action, &[(object.to_owned(), detail.to_owned())]).await
    }

    /// The same with several objects, each with its detail.
    pub(in crate::api) async fn audit_all(
        &self,
        connection: &mut AnyConnection,
        action: &str,
        objects: &[(String, String)],
    ) -> Result<(), StoreError> {
        let change =
            |(object, detail)| Change { user: &self.name, action, object, detail, trace_id: self.trace.as_str() };
        let changes: Vec<_> = objects.iter().map(|(object, detail)| change((object, detail))).collect();
        audit::write(connection, &changes).await
    }
}
