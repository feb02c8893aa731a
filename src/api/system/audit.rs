//! `/api/v2/audit/events`: who changed what.

use crate::{
    api::frame::{
        envelope::{Envelope, Page, Reply, ocp_time},
        error::ApiError,
        extract::Params,
        state::ApiState,
    },
    coordinator::store::{
        StoreError,
        audit::{self, AuditEvent},
    },
};
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(in crate::api) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AuditEventView {
    id: i64,
    create_time: String,
    user: String,
    /// The action, such as `task.retry`.
    action: String,
    /// The changed object, such as `task 33001`.
    object: String,
    detail: String,
    /// Trace id of the request.
    trace_id: String,
}

impl From<AuditEvent> for AuditEventView {
    fn from(event: AuditEvent) -> Self {
        let AuditEvent { id, created_at, user, action, object, detail, trace_id } = event;
        Self { id, create_time: ocp_time(created_at), user, action, object, detail, trace_id }
    }
}

/// Lists what users changed, newest first.
#[utoipa::path(
    get, path = "/api/v2/audit/events", tag = "audit", operation_id = "listAuditEvents",
    params(("page" = Option<i64>, Query), ("size" = Option<i64>, Query)),
    responses((status = 200, description = "Done.", body = Envelope<Page<AuditEventView>>)),
)]
async fn list(State(state): State<ApiState>, params: Params) -> Result<Reply<Page<AuditEventView>>, ApiError> {
    let paging = params.paging()?;
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let (events, total) = audit::list(&mut connection, paging.size, paging.offset()).await?;
    Ok(Reply(paging.page(events.into_iter().map(Into::into).collect(), total)))
}
