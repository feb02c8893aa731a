//! `/api/v2/compute/hosts/enrolmentTokens`: leave for hosts to ask for their first certificate. Not part of OCP.

use crate::{
    api::frame::{
        commit::commit_unless,
        envelope::{Contents, Envelope, ErrorEnvelope, NoData, Page, Reply, ocp_time},
        error::{ApiError, code},
        extract::{JsonBody, Params, PathOf},
        query::DryRun,
        requester::Requester,
        state::ApiState,
        words::ListedTokenStatus,
    },
    coordinator::store::{
        StoreError,
        agent::enrolment_tokens::{self as tokens, Draft, EnrolmentToken, TokenStatus},
        now_micros,
    },
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(in crate::api) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(revoke))
}

const MAX_HOSTS: usize = 50;
const DEFAULT_TTL_SECONDS: u32 = 3600;
const MAX_TTL_SECONDS: u32 = 7 * 86_400;

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TokenCreation {
    /// Addresses of at most 50 hosts. One token is created for each.
    #[schema(value_type = Vec<String>, min_items = 1, max_items = 50)]
    inner_ip_address_list: Vec<IpAddr>,
    /// How long the tokens are valid: at most seven days; default one hour.
    #[schema(minimum = 1, maximum = 604800)]
    ttl_seconds: Option<u32>,
    /// Accept the tokens from any address, for hosts behind a gateway.
    #[serde(default)]
    any_source: bool,
}

/// A new token, shown only once, with everything else that a host needs to enrol.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CreatedToken {
    /// Omitted in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i64>,
    inner_ip_address: String,
    /// Omitted in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    expire_time: String,
    /// URL of this coordinator.
    coordinator_url: String,
    /// SHA-256 of the certificate of the coordinator's authority.
    fingerprint: String,
}

/// Creates a one-time token for each host. Its agent uses the token to request a certificate.
#[utoipa::path(
    post, path = "/api/v2/compute/hosts/enrolmentTokens", tag = "enrolment", operation_id = "createEnrolmentTokens",
    params(DryRun), request_body = TokenCreation,
    responses((status = 200, description = "Done.", body = Envelope<Contents<CreatedToken>>)),
)]
async fn create(
    State(state): State<ApiState>,
    requester: Requester,
    DryRun(dry_run): DryRun,
    JsonBody(body): JsonBody<TokenCreation>,
) -> Result<Reply<Contents<CreatedToken>>, ApiError> {
    if body.inner_ip_address_list.is_empty() || body.inner_ip_address_list.len() > MAX_HOSTS {
        return Err(ApiError::invalid("innerIpAddressList", format_args!("names 1 to {MAX_HOSTS} hosts")));
    }
    if let Some(ip) = body.inner_ip_address_list.iter().find(|ip| ip.is_unspecified() || ip.is_multicast()) {
        return Err(ApiError::invalid("innerIpAddressList", format_args!("{ip} is not the address of a host")));
    }
    let ttl = body.ttl_seconds.unwrap_or(DEFAULT_TTL_SECONDS);
    if !(1..=MAX_TTL_SECONDS).contains(&ttl) {
        return Err(ApiError::invalid("ttlSeconds", format_args!("lies between 1 and {MAX_TTL_SECONDS}")));
    }
    let expires_at = now_micros() + i64::from(ttl) * 1_000_000;
    let enrolment = &state.settings.enrolment;
    let mut transaction = state.store().begin().await?;
    let mut contents = Vec::with_capacity(body.inner_ip_address_list.len());
    for address in body.inner_ip_address_list {
        let address = address.to_canonical();
        let draft = Draft { address, any_source: body.any_source, creator: &requester.name, expires_at };
        let (made, token) =
            enrolment.make_token(&mut transaction, &draft).await.map_err(|error| ApiError::internal(&error))?;
        let detail = format!("for {address}, {ttl} s{}", if body.any_source { ", from any address" } else { "" });
        let object = format!("enrolment token {}", made.id);
        requester.audit(&mut transaction, "enrolmentToken.create", &object, &detail).await?;
        contents.push(CreatedToken {
            id: (!dry_run).then_some(made.id),
            inner_ip_address: address.to_string(),
            token: (!dry_run).then(|| token.to_string()),
            expire_time: ocp_time(expires_at),
            coordinator_url: state.settings.rest_url.clone(),
            fingerprint: enrolment.fingerprint().to_string(),
        });
    }
    if dry_run {
        transaction.rollback().await.map_err(StoreError::from)?;
    } else {
        transaction.commit().await.map_err(StoreError::from)?;
        tracing::info!(tokens = contents.len(), by = requester.name, "enrolment tokens made");
    }
    Ok(Reply(Contents { contents }))
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TokenView {
    id: i64,
    inner_ip_address: String,
    any_source: bool,
    /// OPEN, USED, REVOKED or EXPIRED.
    #[schema(value_type = ListedTokenStatus)]
    status: &'static str,
    creator: String,
    create_time: String,
    expire_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_time: Option<String>,
    /// Address from which it was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    used_from: Option<String>,
    /// Serial number of the certificate that was issued for the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_serial: Option<String>,
}

fn view(token: EnrolmentToken, now: i64) -> TokenView {
    let expired = token.status == TokenStatus::Open && token.expires_at <= now;
    let used = token.used;
    TokenView {
        id: token.id,
        inner_ip_address: token.address.to_string(),
        any_source: token.any_source,
        status: if expired { "EXPIRED" } else { token.status.as_str() },
        creator: token.creator,
        create_time: ocp_time(token.created_at),
        expire_time: ocp_time(token.expires_at),
        used_time: used.as_ref().map(|used| ocp_time(used.at)),
        used_from: used.as_ref().map(|used| used.from.clone()),
        certificate_serial: used.map(|used| used.serial),
    }
}

/// Lists tokens, newest first. The secret part of a token is not stored.
#[utoipa::path(
    get, path = "/api/v2/compute/hosts/enrolmentTokens", tag = "enrolment", operation_id = "listEnrolmentTokens",
    params(("page" = Option<i64>, Query), ("size" = Option<i64>, Query)),
    responses((status = 200, description = "Done.", body = Envelope<Page<TokenView>>)),
)]
async fn list(State(state): State<ApiState>, params: Params) -> Result<Reply<Page<TokenView>>, ApiError> {
    let paging = params.paging()?;
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let (found, total) = tokens::list(&mut connection, paging.size, paging.offset()).await?;
    let now = now_micros();
    Ok(Reply(paging.page(found.into_iter().map(|token| view(token, now)).collect(), total)))
}

/// Revokes a token that was not used.
#[utoipa::path(
    delete, path = "/api/v2/compute/hosts/enrolmentTokens/{id}", tag = "enrolment",
    operation_id = "revokeEnrolmentToken", params(("id" = i64, Path), DryRun),
    responses(
        (status = 200, description = "No data."),
        (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 409, description = "The token was used or revoked.", body = ErrorEnvelope),
    ),
)]
async fn revoke(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf(id): PathOf<i64>,
    dry_run: DryRun,
) -> Result<NoData, ApiError> {
    let mut transaction = state.store().begin().await?;
    let token = tokens::get(&mut transaction, id).await?;
    let token = token.ok_or_else(|| {
        ApiError::not_found(code::INVALID_REQUEST, format_args!("the enrolment token {id} does not exist"))
    })?;
    if !tokens::revoke(&mut transaction, id).await? {
        let text = format_args!("the enrolment token {id} is {} and cannot be revoked", token.status);
        return Err(ApiError::conflict(code::INVALID_REQUEST, text)
            .advise("if a host was enrolled with it that should not be, use: oblet host revoke"));
    }
    let (object, detail) = (format!("enrolment token {id}"), format!("for {}", token.address));
    requester.audit(&mut transaction, "enrolmentToken.revoke", &object, &detail).await?;
    commit_unless(dry_run, transaction).await?;
    Ok(NoData)
}
