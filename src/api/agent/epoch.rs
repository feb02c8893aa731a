//! `POST /api/v2/compute/hosts/{id}/agent/resetEpoch`: the way back when an agent has seen an epoch from a clock that was
//! ahead, and refuses this coordinator as an older one.
//!
//! Nothing is reset on the agent: it would let a coordinator that was replaced speak again. The coordinator's epochs go
//! on above that of the agent instead, from its next start.

use super::{ask, find};
use crate::{
    api::frame::{
        commit::commit_and,
        envelope::{Envelope, ErrorEnvelope, Reply},
        error::{ApiError, code},
        extract::PathOf,
        query::DryRun,
        requester::Requester,
        state::ApiState,
    },
    coordinator::store::{StoreError, task},
};
use axum::{extract::State, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Seconds since 1970 at the end of the year 9999. Epochs grow by one from the time of a clock, and none shows more; an
/// agent that lies must not use up all that there are.
const LAST_EPOCH: i64 = 253_402_300_799;

pub(in crate::api) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(reset))
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct EpochReset {
    /// The highest epoch that the agent has seen.
    agent_epoch: i64,
    /// Epoch of this coordinator until its next start.
    coordinator_epoch: i64,
    /// Lowest epoch that the coordinator takes at its next start.
    next_epoch: i64,
}

/// Raises the coordinator's epoch above the highest that the agent of a host has seen. Takes effect when the coordinator is
/// restarted.
#[utoipa::path(
    post, path = "/api/v2/compute/hosts/{id}/agent/resetEpoch", tag = "agents", operation_id = "resetHostAgentEpoch",
    params(("id" = i64, Path), DryRun),
    responses(
        (status = 200, description = "Done.", body = Envelope<EpochReset>),
        (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 409, description = "The agent has seen no epoch higher than the coordinator's, or one that no clock can produce.", body = ErrorEnvelope),
        (status = 502, description = "The agent does not answer.", body = ErrorEnvelope),
    ),
)]
async fn reset(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf(id): PathOf<i64>,
    DryRun(dry_run): DryRun,
) -> Result<Reply<EpochReset>, ApiError> {
    let host = find(&state, id).await?;
    let facts = ask(&state, &host).await.map_err(|problem| {
        let text = format_args!("the agent of host {id} cannot be asked for its epoch: {problem}");
        ApiError::new(StatusCode::BAD_GATEWAY, "CMP07004", text)
            .advise("see on the host whether oblet-agent runs and its port is open")
    })?;
    let agent_epoch = i64::try_from(facts.epoch).unwrap_or(i64::MAX);
    let coordinator_epoch = state.engine().epoch();
    if agent_epoch <= coordinator_epoch {
        let text = format_args!(
            "the agent of host {id} has seen epoch {agent_epoch}, which is not above {coordinator_epoch}, the epoch of \
             this coordinator"
        );
        return Err(ApiError::conflict(code::INVALID_REQUEST, text).advise("there is nothing to reset"));
    }
    if agent_epoch >= LAST_EPOCH {
        let text = format_args!("the agent of host {id} tells epoch {agent_epoch}, which no clock gives");
        return Err(ApiError::conflict(code::INVALID_REQUEST, text).advise(
            "see what changed the agent's journal; to give the host a journal of its own again, remove the host, move \
             /var/lib/oblet-agent away on it, and enrol it anew",
        ));
    }
    let mut transaction = state.store().begin().await?;
    let next_epoch = task::raise_epoch(&mut transaction, agent_epoch).await?;
    let detail = format!("agent {agent_epoch}, coordinator {coordinator_epoch}, next {next_epoch}");
    requester.audit(&mut transaction, "epoch.reset", &format!("host {id}"), &detail).await?;
    if dry_run {
        transaction.rollback().await.map_err(StoreError::from)?;
    } else {
        commit_and(transaction, async move {
            tracing::warn!(host = id, agent_epoch, next_epoch, "epochs go on higher from the next start");
        })
        .await?;
    }
    Ok(Reply(EpochReset { agent_epoch, coordinator_epoch, next_epoch }))
}
