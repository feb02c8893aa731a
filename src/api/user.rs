//! `/api/v2/profiles/me`: what users change of themselves.

use super::frame::{
    auth,
    commit::commit_unless,
    envelope::{ErrorEnvelope, NoData},
    error::ApiError,
    extract::{JsonBody, Password},
    query::DryRun,
    requester::Requester,
    state::ApiState,
};
use crate::coordinator::store::user;
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(change_password))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PasswordChange {
    #[schema(value_type = String)]
    current_password: Password,
    /// 8 to 64 visible characters, not the current password.
    #[schema(value_type = String, min_length = 8, max_length = 64)]
    new_password: Password,
}

/// Changes the password of the user who sends the request. Requests with the old password are refused from then on.
#[utoipa::path(
    post, path = "/api/v2/profiles/me/changePassword", tag = "users", operation_id = "changePassword",
    params(DryRun), request_body = PasswordChange,
    responses(
        (status = 200, description = "No data."),
        (status = 400, description = "The new password is too weak.", body = ErrorEnvelope),
        (status = 401, description = "The current password is wrong.", body = ErrorEnvelope),
    ),
)]
async fn change_password(
    State(state): State<ApiState>,
    requester: Requester,
    dry_run: DryRun,
    headers: HeaderMap,
    JsonBody(body): JsonBody<PasswordChange>,
) -> Result<NoData, ApiError> {
    let PasswordChange { current_password: Password(current), new_password: Password(new) } = body;
    // The request was let in with the current one; asking for it again keeps a borrowed terminal from changing it.
    if !auth::gave(&headers, &current) {
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "IAM10004", "the current password is wrong")
            .about("currentPassword"));
    }
    user::check_strength(&new).map_err(|weak| ApiError::invalid("newPassword", weak))?;
    if new.expose_secret() == current.expose_secret() {
        return Err(ApiError::invalid("newPassword", "it is the same as the current password"));
    }
    let hash = state.gate.hash(new).await?;
    let mut transaction = state.store().begin().await?;
    user::set_password_hash(&mut transaction, &requester.name, &hash).await?;
    requester.audit(&mut transaction, "user.password", &format!("user {}", requester.name), "").await?;
    commit_unless(dry_run, transaction).await?;
    Ok(NoData)
}
