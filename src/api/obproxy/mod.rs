//! `/api/v2/obproxy/clusters`: proxy clusters, and the proxies added to them.

mod change;
pub(super) mod config_service;
pub(super) mod install;
mod links;
mod removal;
pub(super) mod view;

use super::{
    frame::{
        envelope::{Contents, Envelope, ErrorEnvelope, Page, Reply},
        error::{ApiError, code},
        extract::{Params, Password, PathOf},
        limits::check_count,
        once::Keyed,
        query::DryRun,
        requester::Requester,
        state::ApiState,
    },
    task::{
        self,
        view::{self as task_view, TaskInstance},
    },
};
use crate::{
    coordinator::store::{
        StoreError, now_micros,
        obproxy::{self, Cluster, ClusterMode, SealedSecrets},
        task::TaskRecord,
    },
    operations::{NewProxy, create_cluster, install_obproxy},
    steps::{
        OBPROXY_SYS_PASSWORD, OBSERVER_SYS_PASSWORD,
        values::{ClusterName, Parameter, ParameterName, ParameterValue},
    },
};
use axum::extract::State;
use install::InstallParam;
use links::ObLinkParam;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use std::collections::HashSet;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use view::ObproxyClusterView;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, removal::delete_cluster))
        .routes(routes!(batch_add))
        .merge(change::router())
        .merge(links::router())
        .routes(routes!(removal::delete_proxies))
        .routes(routes!(removal::delete_servers))
}

/// obproxy has about 300 parameters.
const MOST_PARAMETERS: usize = 500;

fn absent(id: i64) -> ApiError {
    ApiError::not_found("ODP21001", format_args!("the OBProxy cluster {id} does not exist"))
}

/// Lists proxy clusters.
#[utoipa::path(
    get, path = "/api/v2/obproxy/clusters", tag = "obproxy", operation_id = "listObproxyClusters",
    params(("page" = Option<i64>, Query), ("size" = Option<i64>, Query)),
    responses((status = 200, description = "Done.", body = Envelope<Page<ObproxyClusterView>>)),
)]
async fn list(State(state): State<ApiState>, params: Params) -> Result<Reply<Page<ObproxyClusterView>>, ApiError> {
    let paging = params.paging()?;
    params.oldest_first()?;
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let (found, total) = obproxy::list(&mut connection, paging.size, paging.offset()).await?;
    let views = view::views(&mut connection, found, &state.settings.config_url_base).await?;
    Ok(Reply(paging.page(views, total)))
}

/// Returns a proxy cluster with its proxies.
#[utoipa::path(
    get, path = "/api/v2/obproxy/clusters/{id}", tag = "obproxy", operation_id = "getObproxyCluster",
    params(("id" = i64, Path)),
    responses((status = 200, description = "Done.", body = Envelope<ObproxyClusterView>), (status = 404, description = "It does not exist.", body = ErrorEnvelope)),
)]
async fn get(State(state): State<ApiState>, PathOf(id): PathOf<i64>) -> Result<Reply<ObproxyClusterView>, ApiError> {
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let cluster = obproxy::get(&mut connection, id).await?.ok_or_else(|| absent(id))?;
    let views = view::views(&mut connection, vec![cluster], &state.settings.config_url_base).await?;
    views.into_iter().next().map(Reply).ok_or_else(|| absent(id))
}

/// A proxy cluster to create, optionally with its first proxies.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CreateCluster {
    #[schema(value_type = String, max_length = 64, pattern = "^[A-Za-z][A-Za-z0-9_.-]*$")]
    name: ClusterName,
    /// Address at which clients reach the cluster.
    #[schema(max_length = 255)]
    address: Option<String>,
    #[schema(maximum = 65535)]
    port: Option<u16>,
    /// CONFIG_URL (the default) or RS_LIST.
    work_mode: Option<ClusterMode>,
    obproxy_install_param: Option<InstallParam>,
    /// At most 100.
    #[schema(max_items = 100)]
    ob_links: Vec<ObLinkParam>,
    /// At most 500.
    #[serde(default)]
    #[schema(max_items = 500)]
    startup_parameters: Vec<ParameterParam>,
    /// At most 500.
    #[serde(default)]
    #[schema(max_items = 500)]
    parameters: Vec<ParameterParam>,
    /// Password of root@proxysys; generated if omitted.
    #[schema(value_type = Option<String>, format = Password, min_length = 8, max_length = 32)]
    password: Option<Password>,
    /// Password of the user with which the proxies query OceanBase clusters; generated if omitted.
    #[schema(value_type = Option<String>, format = Password, min_length = 8, max_length = 32)]
    proxyro_password: Option<Password>,
    /// OCP's name for the header `Idempotency-Key`: 8 to 64 characters.
    #[serde(rename = "clientToken")]
    #[schema(min_length = 8, max_length = 64)]
    _client_token: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ParameterParam {
    #[schema(value_type = String, max_length = 64, pattern = "^[a-z][a-z0-9_]*$")]
    name: ParameterName,
    #[schema(value_type = String, max_length = 4096)]
    value: ParameterValue,
}

impl Password {
    /// OCP's rule ODP21106.
    fn check(&self, field: &str) -> Result<(), ApiError> {
        const SPECIAL: &str = "._+@#$%";
        let text = self.0.expose_secret();
        let two = |fits: fn(char) -> bool| text.chars().filter(|c| fits(*c)).count() >= 2;
        let kinds = two(|c| c.is_ascii_digit())
            && two(|c| c.is_ascii_uppercase())
            && two(|c| c.is_ascii_lowercase())
            && two(|c| SPECIAL.contains(c));
        let allowed = text.chars().all(|c| c.is_ascii_alphanumeric() || SPECIAL.contains(c));
        if kinds && allowed && (8..=32).contains(&text.len()) {
            return Ok(());
        }
        let text = format_args!(
            "{field}: a password has 8 to 32 characters, at least two each of digits, upper-case letters, \
             lower-case letters and {SPECIAL}, and no others"
        );
        Err(ApiError::new(axum::http::StatusCode::BAD_REQUEST, "ODP21106", text).about(field))
    }
}

/// Creates a proxy cluster.
#[utoipa::path(
    post, path = "/api/v2/obproxy/clusters", tag = "obproxy", operation_id = "createObproxyCluster",
    params(DryRun, ("Idempotency-Key" = Option<String>, Header, description = "If the request is repeated with the same key, it returns the same task.")),
    request_body = CreateCluster,
    responses(
        (status = 200, description = "Done.", body = Envelope<TaskInstance>), (status = 400, description = "A field is missing or wrong.", body = ErrorEnvelope),
        (status = 404, description = "A host or the package does not exist.", body = ErrorEnvelope),
        (status = 409, description = "The name or a port is taken, a host is reserved, the package does not fit, or the key was used for another request.", body = ErrorEnvelope),
    ),
)]
async fn create(
    State(state): State<ApiState>,
    requester: Requester,
    DryRun(dry_run): DryRun,
    Keyed { body, once }: Keyed<CreateCluster>,
) -> Result<Reply<TaskInstance>, ApiError> {
    for (field, password) in [("password", &body.password), ("proxyroPassword", &body.proxyro_password)] {
        password.as_ref().map_or(Ok(()), |password| password.check(field))?;
    }
    if body.obproxy_install_param.as_ref().is_some_and(|param| param.client_token.is_some()) {
        return Err(ApiError::invalid("obproxyInstallParam.clientToken", "belongs beside obproxyInstallParam"));
    }
    let mut transaction = state.store().begin().await?;
    if !dry_run && let Some(made) = once.made(&state, &mut transaction).await? {
        let made = made.into_iter().next().ok_or_else(|| ApiError::internal(&sqlx::Error::RowNotFound))?;
        return Ok(Reply(task_view::again(made)?));
    }
    let id = obproxy::next_id(&mut transaction).await?;
    let now = now_micros();
    let cluster = Cluster {
        id,
        secrets: seal(&state, id, body.password.as_ref(), body.proxyro_password.as_ref())?,
        name: body.name,
        address: address(body.address)?,
        port: port(body.port),
        work_mode: body.work_mode.unwrap_or(ClusterMode::ConfigUrl),
        ob_links: links::distinct(body.ob_links)?,
        startup_parameters: parameters("startupParameters", body.startup_parameters)?,
        parameters: parameters("parameters", body.parameters)?,
        parameter_version: 1,
        creator: requester.name.clone(),
        created_at: now,
        updated_at: now,
    };
    install::check_mode(&cluster)?;
    let installation = match body.obproxy_install_param.filter(|param| !param.host_ids.is_empty()) {
        Some(param) => Some(param.check(&mut transaction).await?),
        None => None,
    };
    let taken = |error: StoreError| {
        let text = format_args!("an OBProxy cluster named {} exists", cluster.name);
        if error.is_conflict() { ApiError::conflict(code::NAME_TAKEN, text).about("name") } else { error.into() }
    };
    obproxy::insert(&mut transaction, &cluster).await.map_err(taken)?;
    let plan = match installation {
        Some(installation) => {
            let (install, proxies) = installation.write(&state, &mut transaction, &cluster).await?;
            create_cluster(id, Some((&install, &proxies)))
        }
        None => create_cluster(id, None),
    };
    let plan = plan.map_err(|error| ApiError::internal(&error))?;
    let record = task::create(&state, &mut transaction, &plan, &requester).await?;
    once.remember(&mut transaction, std::slice::from_ref(&record)).await?;
    let detail = format!("{}, by task {}", cluster.name, record.id);
    requester.audit(&mut transaction, "obproxyCluster.create", &format!("obproxy cluster {id}"), &detail).await?;
    if dry_run {
        transaction.rollback().await.map_err(StoreError::from)?;
        return Ok(Reply(task_view::planned(&record)));
    }
    task::commit_and_wake(&state, transaction, std::slice::from_ref(&record)).await?;
    Ok(Reply(task_view::created(&record)))
}

fn address(given: Option<String>) -> Result<Option<String>, ApiError> {
    match given.filter(|address| !address.is_empty()) {
        Some(long) if long.len() > 255 || long.chars().any(|c| c.is_control() || c.is_whitespace()) => {
            Err(ApiError::invalid("address", "an address has at most 255 characters and no white space"))
        }
        address => Ok(address),
    }
}

/// OCP's clients send 0 for none.
fn port(given: Option<u16>) -> Option<u16> {
    given.filter(|port| *port > 0)
}

fn seal(
    state: &ApiState,
    id: i64,
    password: Option<&Password>,
    proxyro: Option<&Password>,
) -> Result<SealedSecrets, ApiError> {
    let seal = |secret: &str, given: Option<&Password>| {
        let vault = &state.settings.vault;
        let place = SealedSecrets::place(id, secret);
        match given {
            Some(password) => vault.seal(&place, password.0.expose_secret()),
            None => vault.generate_password().and_then(|password| vault.seal(&place, &password)),
        }
    };
    let sealed = |secret, given| seal(secret, given).map_err(|error| ApiError::internal(&error));
    Ok(SealedSecrets {
        obproxy_sys_password: sealed(OBPROXY_SYS_PASSWORD, password)?,
        observer_sys_password: sealed(OBSERVER_SYS_PASSWORD, proxyro)?,
    })
}

fn parameters(field: &str, list: Vec<ParameterParam>) -> Result<Vec<Parameter>, ApiError> {
    check_count(field, list.len(), MOST_PARAMETERS)?;
    let mut seen = HashSet::new();
    let convert = |parameter: ParameterParam| {
        let name = parameter.name.as_str();
        if !seen.insert(parameter.name.clone()) {
            return Err(ApiError::invalid(field, format_args!("{name} is given twice")));
        }
        if name.contains("password") {
            let why = format_args!("{name} is a secret: give it as password or proxyroPassword");
            return Err(ApiError::invalid(field, why));
        }
        Ok(Parameter { name: parameter.name, value: parameter.value })
    };
    list.into_iter().map(convert).collect()
}

/// Adds proxies to a cluster. Creates one task per host.
#[utoipa::path(
    post, path = "/api/v2/obproxy/clusters/{id}/obproxies/batchAdd", tag = "obproxy", operation_id = "addObproxies",
    params(
        ("id" = i64, Path),
        DryRun, ("Idempotency-Key" = Option<String>, Header, description = "If the request is repeated with the same key, it returns the same tasks."),
    ),
    request_body = InstallParam,
    responses(
        (status = 200, description = "Done.", body = Envelope<Contents<TaskInstance>>), (status = 400, description = "A field is missing or wrong.", body = ErrorEnvelope),
        (status = 404, description = "The cluster, a host or the package does not exist.", body = ErrorEnvelope),
        (status = 409, description = "A port is taken, a host is reserved, the package does not fit a host, or the key was used for another request.", body = ErrorEnvelope),
    ),
)]
async fn batch_add(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf(id): PathOf<i64>,
    DryRun(dry_run): DryRun,
    Keyed { body, once }: Keyed<InstallParam>,
) -> Result<Reply<Contents<TaskInstance>>, ApiError> {
    let mut transaction = state.store().begin().await?;
    if !dry_run && let Some(made) = once.made(&state, &mut transaction).await? {
        return Ok(Reply(Contents { contents: made.into_iter().map(task_view::again).collect::<Result<_, _>>()? }));
    }
    let cluster = obproxy::get(&mut transaction, id).await?.ok_or_else(|| absent(id))?;
    let installation = body.check(&mut transaction).await?;
    let (install, proxies) = installation.write(&state, &mut transaction, &cluster).await?;
    let plan = |proxy: &NewProxy| install_obproxy(&install, *proxy).map_err(|error| ApiError::internal(&error));
    let plans = proxies.iter().map(plan).collect::<Result<Vec<_>, _>>()?;
    let records = task::create_all(&state, &mut transaction, &plans, &requester).await?;
    let change = |(proxy, record): (&NewProxy, &TaskRecord)| {
        (format!("obproxy {}", proxy.server_id), format!("on host {}, by task {}", proxy.host_id, record.id))
    };
    let changes: Vec<_> = proxies.iter().zip(&records).map(change).collect();
    requester.audit_all(&mut transaction, "obproxy.add", &changes).await?;
    once.remember(&mut transaction, &records).await?;
    if dry_run {
        transaction.rollback().await.map_err(StoreError::from)?;
        return Ok(Reply(Contents { contents: records.iter().map(task_view::planned).collect() }));
    }
    task::commit_and_wake(&state, transaction, &records).await?;
    Ok(Reply(Contents { contents: records.iter().map(task_view::created).collect() }))
}
