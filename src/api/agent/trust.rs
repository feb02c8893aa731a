//! Certificates of hosts, and the end of trust in a host. Not part of OCP.

use crate::{
    api::{
        frame::{
            commit::commit_and,
            envelope::{Envelope, ErrorEnvelope, Page, Reply, ocp_time},
            error::ApiError,
            extract::{JsonBody, Params},
            query::DryRun,
            requester::Requester,
            state::ApiState,
        },
        host::absent,
    },
    coordinator::{
        enrolment::Enrolment,
        store::{
            StoreError,
            agent::certificates::{self as certificates, AgentCertificate, CertificateStatus},
            host,
        },
    },
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(in crate::api) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(revoke))
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CertificateView {
    serial: String,
    inner_ip_address: String,
    /// Omitted if the host was not added.
    #[serde(skip_serializing_if = "Option::is_none")]
    host_id: Option<i64>,
    /// SHA-256 of the certificate.
    fingerprint: String,
    /// ISSUED: not used yet. CURRENT: in use. REPLACED: a newer one is in use. REVOKED: refused.
    #[schema(value_type = CertificateStatus)]
    status: &'static str,
    issue_time: String,
    expire_time: String,
}

impl From<AgentCertificate> for CertificateView {
    fn from(certificate: AgentCertificate) -> Self {
        Self {
            serial: certificate.serial,
            inner_ip_address: certificate.address.to_string(),
            host_id: certificate.host_id,
            fingerprint: certificate.fingerprint.to_string(),
            status: certificate.status.as_str(),
            issue_time: ocp_time(certificate.issued_at),
            expire_time: ocp_time(certificate.not_after),
        }
    }
}

/// Lists the certificates that hosts were given when they were enrolled or renewed, newest first.
#[utoipa::path(
    get, path = "/api/v2/compute/hosts/certificates", tag = "enrolment", operation_id = "listHostCertificates",
    params(("page" = Option<i64>, Query), ("size" = Option<i64>, Query)),
    responses((status = 200, description = "Done.", body = Envelope<Page<CertificateView>>)),
)]
async fn list(State(state): State<ApiState>, params: Params) -> Result<Reply<Page<CertificateView>>, ApiError> {
    let paging = params.paging()?;
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let (found, total) = certificates::list(&mut connection, paging.size, paging.offset()).await?;
    Ok(Reply(paging.page(found.into_iter().map(Into::into).collect(), total)))
}

/// Identifies the host by one of the two fields.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(min_properties = 1, max_properties = 1)]
struct Revocation {
    host_id: Option<i64>,
    #[schema(value_type = Option<String>)]
    inner_ip_address: Option<IpAddr>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RevokedHost {
    #[serde(skip_serializing_if = "Option::is_none")]
    host_id: Option<i64>,
    inner_ip_address: String,
}

/// Revokes a host: its agent is disconnected at once and gets no certificate until the host is enrolled with a new token.
/// Services on the host keep running.
#[utoipa::path(
    post, path = "/api/v2/compute/hosts/revoke", tag = "enrolment", operation_id = "revokeHost",
    params(DryRun), request_body = Revocation,
    responses(
        (status = 200, description = "Done.", body = Envelope<RevokedHost>),
        (status = 404, description = "It does not exist.", body = ErrorEnvelope),
    ),
)]
async fn revoke(
    State(state): State<ApiState>,
    requester: Requester,
    DryRun(dry_run): DryRun,
    JsonBody(body): JsonBody<Revocation>,
) -> Result<Reply<RevokedHost>, ApiError> {
    let mut transaction = state.store().begin().await?;
    let (host_id, address) = match (body.host_id, body.inner_ip_address) {
        (Some(id), None) => {
            let host = host::get(&mut transaction, id).await?.ok_or_else(|| absent(id))?;
            (Some(id), host.inner_ip)
        }
        (None, Some(address)) => {
            let address = address.to_canonical();
            let host = host::by_ip(&mut transaction, address).await?;
            if host.is_none() && !certificates::is_known(&mut transaction, address).await? {
                let text = format_args!("nothing is known of a host {address}");
                return Err(ApiError::not_found("CMP07005", text).advise("see the hosts with: oblet host list"));
            }
            (host.map(|host| host.id), address)
        }
        (None, None) | (Some(_), Some(_)) => {
            return Err(ApiError::invalid("hostId, innerIpAddress", "the host is named by one of the two"));
        }
    };
    let trusted = Enrolment::revoke(&mut transaction, address, &requester.name).await?;
    let detail = if trusted { "" } else { "was revoked before" };
    requester.audit(&mut transaction, "host.revoke", &format!("host {address}"), detail).await?;
    if dry_run {
        transaction.rollback().await.map_err(StoreError::from)?;
    } else {
        commit_and(transaction, async move {
            state.engine().cut_off(address);
            tracing::warn!(host = %address, by = requester.name, "host revoked");
        })
        .await?;
    }
    Ok(Reply(RevokedHost { host_id, inner_ip_address: address.to_string() }))
}
