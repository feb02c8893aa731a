//! Upgrading agents: `batchUpgradeAgents`, which OCP does not have.

use super::commands::{answered, check_hosts, conclude};
use crate::{
    api::{
        frame::{
            envelope::{Envelope, ErrorEnvelope, Reply},
            error::ApiError,
            once::Keyed,
            query::DryRun,
            requester::Requester,
            state::ApiState,
        },
        task::{self, view::TaskInstance},
    },
    coordinator::store::package::{self, PackageKind},
    operations::upgrade_agents,
    steps::AgentPackage,
};
use axum::{extract::State, http::StatusCode};
use serde::Deserialize;
use sqlx::AnyConnection;
use std::num::NonZeroUsize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(in crate::api) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(batch_upgrade))
}

/// One rpm and one deb for each architecture are more than any fleet has.
const MAX_PACKAGES: usize = 8;
const DEFAULT_PARALLEL: usize = 4;

/// Agents to upgrade, and the packages to upgrade them with.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AgentUpgrade {
    /// At most 200. They are upgraded in this order.
    #[schema(min_items = 1, max_items = 200)]
    host_ids: Vec<i64>,
    /// Ids of uploaded packages of oblet-agent, one for each kind of host: rpm or deb, and architecture.
    #[schema(min_items = 1, max_items = 8)]
    packages: Vec<i64>,
    /// How many agents are upgraded at a time: 1 to 200; default 4.
    #[schema(minimum = 1, maximum = 200)]
    parallel: Option<i64>,
    /// OCP's name for the header `Idempotency-Key`: 8 to 64 characters.
    #[serde(rename = "clientToken")]
    #[schema(min_length = 8, max_length = 64)]
    _client_token: Option<String>,
}

impl AgentUpgrade {
    fn parallel(&self) -> Result<NonZeroUsize, ApiError> {
        let Some(number) = self.parallel else {
            return Ok(NonZeroUsize::MIN.saturating_add(DEFAULT_PARALLEL - 1));
        };
        let number = usize::try_from(number).ok().filter(|number| *number <= 200).and_then(NonZeroUsize::new);
        number.ok_or_else(|| ApiError::invalid("parallel", "1 to 200 agents are upgraded at a time"))
    }

    /// No two of which are for the same hosts.
    async fn packages(&self, connection: &mut AnyConnection) -> Result<Vec<AgentPackage>, ApiError> {
        if self.packages.is_empty() || self.packages.len() > MAX_PACKAGES {
            return Err(ApiError::invalid(
                "packages",
                format_args!("1 to {MAX_PACKAGES} packages are named at a time"),
            ));
        }
        let mut chosen: Vec<AgentPackage> = Vec::new();
        for id in &self.packages {
            let found = package::get(connection, *id).await?;
            let found = found.ok_or_else(|| {
                ApiError::not_found("PKG10014", format_args!("the package {id} does not exist")).about("packages")
            })?;
            let package = found.package;
            if found.kind != PackageKind::Agent {
                let text = format_args!("{package} is no package of the agent");
                return Err(ApiError::new(StatusCode::BAD_REQUEST, "PKG10013", text).about("packages"));
            }
            let place = (package.format(), package.machine());
            if let Some(other) = chosen.iter().find(|other| (other.package.format(), other.package.machine()) == place)
            {
                let text = format_args!("{} and {package} are for the same hosts", other.package);
                return Err(ApiError::invalid("packages", text));
            }
            chosen.push(AgentPackage { package, sha256: found.sha256 });
        }
        Ok(chosen)
    }
}

/// Upgrades the agents of hosts, a few at a time, and stops at the first failure. Proxies and running tasks continue.
#[utoipa::path(
    post, path = "/api/v2/compute/hosts/batchUpgradeAgents", tag = "agents", operation_id = "upgradeHostAgents",
    params(DryRun, ("Idempotency-Key" = Option<String>, Header, description = "If the request is repeated with the same key, it returns the same task.")),
    request_body = AgentUpgrade,
    responses(
        (status = 200, description = "Done.", body = Envelope<TaskInstance>),
        (status = 400, description = "A package is not an agent package, or two packages are for the same kind of host.", body = ErrorEnvelope),
        (status = 404, description = "A host or a package does not exist.", body = ErrorEnvelope),
    ),
)]
async fn batch_upgrade(
    State(state): State<ApiState>,
    requester: Requester,
    DryRun(dry_run): DryRun,
    Keyed { body, once }: Keyed<AgentUpgrade>,
) -> Result<Reply<TaskInstance>, ApiError> {
    let parallel = body.parallel()?;
    let mut transaction = state.store().begin().await?;
    if !dry_run && let Some(answer) = answered(&state, &mut transaction, &once).await? {
        return Ok(answer);
    }
    check_hosts(&mut transaction, &body.host_ids).await?;
    let packages = body.packages(&mut transaction).await?;
    let plan = upgrade_agents(&body.host_ids, &packages, parallel);
    let record = task::create(&state, &mut transaction, &plan, &requester).await?;
    for id in &body.host_ids {
        let (object, detail) = (format!("host {id}"), format!("by task {}", record.id));
        requester.audit(&mut transaction, "agent.upgrade", &object, &detail).await?;
    }
    conclude(&state, transaction, &once, DryRun(dry_run), &record).await
}
