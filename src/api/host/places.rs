//! `/api/v2/compute/regions`, `/idcs` and `/hostTypes`: where hosts stand, and what they are.

use crate::{
    api::frame::{
        commit::commit_unless,
        envelope::{Envelope, ErrorEnvelope, NoData, Page, Reply},
        error::{ApiError, code},
        extract::{JsonBody, Params, PathOf},
        query::DryRun,
        requester::Requester,
        state::ApiState,
    },
    coordinator::store::{
        StoreError,
        host::{
            Host,
            places::{self, Place, PlaceKind},
        },
    },
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;
use std::collections::HashMap;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

const LONGEST_NAME: usize = 64;
const LONGEST_DESCRIPTION: usize = 1000;

pub(in crate::api) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_regions, create_region))
        .routes(routes!(get_region, delete_region))
        .routes(routes!(list_idcs, create_idc))
        .routes(routes!(get_idc, delete_idc))
        .routes(routes!(list_host_types, create_host_type))
        .routes(routes!(get_host_type, delete_host_type))
}

/// A region, or a type of hosts.
#[derive(Serialize, ToSchema)]
struct PlaceView {
    /// Omitted in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i64>,
    name: String,
    description: String,
}

impl From<Place> for PlaceView {
    fn from(Place { id, name, description, .. }: Place) -> Self {
        Self { id: Some(id), name, description }
    }
}

impl PlaceView {
    /// As it would stand, if the request only tries it.
    fn made(DryRun(dry_run): DryRun, place: Place) -> Self {
        Self { id: (!dry_run).then_some(place.id), ..place.into() }
    }
}

/// A data centre.
#[derive(Serialize, ToSchema)]
struct IdcView {
    /// Omitted in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i64>,
    name: String,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<PlaceView>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewPlace {
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    #[schema(max_length = 1000)]
    description: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewIdc {
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    #[schema(max_length = 1000)]
    description: Option<String>,
    region_id: i64,
}

/// What an operator calls a kind, and the code of an error about one.
fn words(kind: PlaceKind) -> (&'static str, &'static str) {
    match kind {
        PlaceKind::Region => ("region", "CMP07008"),
        PlaceKind::Idc => ("IDC", "CMP07007"),
        PlaceKind::HostType => ("host type", "CMP07009"),
    }
}

fn action(kind: PlaceKind, verb: &str) -> String {
    format!("{}.{verb}", kind.as_str().to_ascii_lowercase())
}

fn absent(kind: PlaceKind, id: i64) -> ApiError {
    let (word, code) = words(kind);
    ApiError::not_found(code, format_args!("the {word} {id} does not exist"))
}

/// 400 if a request names a place that does not exist.
pub(super) async fn check(
    connection: &mut AnyConnection,
    kind: PlaceKind,
    field: &str,
    id: Option<i64>,
) -> Result<(), ApiError> {
    let Some(id) = id else { return Ok(()) };
    match places::get(connection, kind, id).await? {
        Some(_) => Ok(()),
        None => Err(ApiError::invalid(field, format_args!("there is no {} {id}", words(kind).0))),
    }
}

/// IDCs, their regions and types of hosts, by their ids.
pub(super) async fn of_hosts(
    connection: &mut AnyConnection,
    hosts: &[Host],
) -> Result<HashMap<i64, Place>, StoreError> {
    let ids: Vec<i64> = hosts.iter().flat_map(|host| [host.idc_id, host.type_id]).flatten().collect();
    let mut found = places::find(connection, ids).await?;
    let regions: Vec<i64> = found.values().filter_map(|place| place.region_id).collect();
    found.extend(places::find(connection, regions).await?);
    Ok(found)
}

async fn list(state: &ApiState, kind: PlaceKind, params: Params) -> Result<Reply<Page<PlaceView>>, ApiError> {
    let paging = params.paging()?;
    params.oldest_first()?;
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let (found, total) = places::list(&mut connection, kind, paging.size, paging.offset()).await?;
    Ok(Reply(paging.page(found.into_iter().map(Into::into).collect(), total)))
}

async fn get(state: &ApiState, kind: PlaceKind, id: i64) -> Result<Place, ApiError> {
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    places::get(&mut connection, kind, id).await?.ok_or_else(|| absent(kind, id))
}

async fn idc_view(state: &ApiState, idc: Place) -> Result<IdcView, ApiError> {
    let region = match idc.region_id {
        Some(id) => Some(get(state, PlaceKind::Region, id).await?.into()),
        None => None,
    };
    Ok(IdcView { id: Some(idc.id), name: idc.name, description: idc.description, region })
}

async fn create(
    state: &ApiState,
    requester: &Requester,
    dry_run: DryRun,
    kind: PlaceKind,
    new: NewPlace,
    region_id: Option<i64>,
) -> Result<Place, ApiError> {
    let NewPlace { name, description } = new;
    let description = description.unwrap_or_default();
    let is_bad = |text: &str, longest: usize| text.chars().count() > longest || text.chars().any(char::is_control);
    if name.trim() != name || name.is_empty() || is_bad(&name, LONGEST_NAME) {
        let why = format_args!("has 1 to {LONGEST_NAME} characters, no control characters, no spaces at its ends");
        return Err(ApiError::invalid("name", why));
    }
    if is_bad(&description, LONGEST_DESCRIPTION) {
        let why = format_args!("has at most {LONGEST_DESCRIPTION} characters and no control characters");
        return Err(ApiError::invalid("description", why));
    }
    let (word, _) = words(kind);
    let mut transaction = state.store().begin().await?;
    check(&mut transaction, PlaceKind::Region, "regionId", region_id).await?;
    let place = places::insert(&mut transaction, kind, &name, &description, region_id).await.map_err(|error| {
        if !error.is_conflict() {
            return error.into();
        }
        ApiError::conflict(code::NAME_TAKEN, format_args!("a {word} with the name {name} exists already")).about("name")
    })?;
    requester.audit(&mut transaction, &action(kind, "create"), &format!("{word} {}", place.id), &name).await?;
    commit_unless(dry_run, transaction).await?;
    Ok(place)
}

async fn delete(
    state: &ApiState,
    requester: &Requester,
    dry_run: DryRun,
    kind: PlaceKind,
    id: i64,
) -> Result<NoData, ApiError> {
    let (word, code) = words(kind);
    let mut transaction = state.store().begin().await?;
    let place = places::get(&mut transaction, kind, id).await?.ok_or_else(|| absent(kind, id))?;
    let uses = places::uses(&mut transaction, id).await?;
    if uses > 0 {
        let user = if kind == PlaceKind::Region { "IDC" } else { "host" };
        let plural = if uses == 1 { "" } else { "s" };
        let text = format_args!("the {word} {} is used by {uses} {user}{plural}", place.name);
        return Err(ApiError::conflict(code, text).advise(format!("remove every {user} that uses it first")));
    }
    places::delete(&mut transaction, id).await?;
    requester.audit(&mut transaction, &action(kind, "delete"), &format!("{word} {id}"), &place.name).await?;
    commit_unless(dry_run, transaction).await?;
    Ok(NoData)
}

/// Lists regions, the oldest first.
#[utoipa::path(
    get, path = "/api/v2/compute/regions", tag = "places", operation_id = "listRegions",
    params(("page" = Option<i64>, Query), ("size" = Option<i64>, Query)),
    responses((status = 200, description = "Done.", body = Envelope<Page<PlaceView>>)),
)]
async fn list_regions(State(state): State<ApiState>, params: Params) -> Result<Reply<Page<PlaceView>>, ApiError> {
    list(&state, PlaceKind::Region, params).await
}

/// Returns a region.
#[utoipa::path(
    get, path = "/api/v2/compute/regions/{id}", tag = "places", operation_id = "getRegion", params(("id" = i64, Path)),
    responses((status = 200, description = "Done.", body = Envelope<PlaceView>), (status = 404, description = "It does not exist.", body = ErrorEnvelope)),
)]
async fn get_region(State(state): State<ApiState>, PathOf(id): PathOf<i64>) -> Result<Reply<PlaceView>, ApiError> {
    Ok(Reply(get(&state, PlaceKind::Region, id).await?.into()))
}

/// Adds a region.
#[utoipa::path(
    post, path = "/api/v2/compute/regions", tag = "places", operation_id = "createRegion", params(DryRun),
    request_body = NewPlace,
    responses((status = 200, description = "Done.", body = Envelope<PlaceView>), (status = 409, description = "The name is taken.", body = ErrorEnvelope)),
)]
async fn create_region(
    State(state): State<ApiState>,
    requester: Requester,
    dry_run: DryRun,
    JsonBody(body): JsonBody<NewPlace>,
) -> Result<Reply<PlaceView>, ApiError> {
    let region = create(&state, &requester, dry_run, PlaceKind::Region, body, None).await?;
    Ok(Reply(PlaceView::made(dry_run, region)))
}

/// Removes a region that is not used.
#[utoipa::path(
    delete, path = "/api/v2/compute/regions/{id}", tag = "places", operation_id = "deleteRegion",
    params(("id" = i64, Path), DryRun),
    responses(
        (status = 200, description = "No data."),
        (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 409, description = "An IDC belongs to it.", body = ErrorEnvelope),
    ),
)]
async fn delete_region(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf(id): PathOf<i64>,
    dry_run: DryRun,
) -> Result<NoData, ApiError> {
    delete(&state, &requester, dry_run, PlaceKind::Region, id).await
}

/// Lists IDCs, the oldest first.
#[utoipa::path(
    get, path = "/api/v2/compute/idcs", tag = "places", operation_id = "listIdcs",
    params(("page" = Option<i64>, Query), ("size" = Option<i64>, Query)),
    responses((status = 200, description = "Done.", body = Envelope<Page<IdcView>>)),
)]
async fn list_idcs(State(state): State<ApiState>, params: Params) -> Result<Reply<Page<IdcView>>, ApiError> {
    let paging = params.paging()?;
    params.oldest_first()?;
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let (found, total) = places::list(&mut connection, PlaceKind::Idc, paging.size, paging.offset()).await?;
    let regions: Vec<i64> = found.iter().filter_map(|idc| idc.region_id).collect();
    let regions = places::find(&mut connection, regions).await?;
    let view = |idc: Place| {
        let region = idc.region_id.and_then(|id| regions.get(&id)).cloned().map(Into::into);
        IdcView { id: Some(idc.id), name: idc.name, description: idc.description, region }
    };
    Ok(Reply(paging.page(found.into_iter().map(view).collect(), total)))
}

/// Returns an IDC.
#[utoipa::path(
    get, path = "/api/v2/compute/idcs/{id}", tag = "places", operation_id = "getIdc", params(("id" = i64, Path)),
    responses((status = 200, description = "Done.", body = Envelope<IdcView>), (status = 404, description = "It does not exist.", body = ErrorEnvelope)),
)]
async fn get_idc(State(state): State<ApiState>, PathOf(id): PathOf<i64>) -> Result<Reply<IdcView>, ApiError> {
    let idc = get(&state, PlaceKind::Idc, id).await?;
    Ok(Reply(idc_view(&state, idc).await?))
}

/// Adds an IDC to a region.
#[utoipa::path(
    post, path = "/api/v2/compute/idcs", tag = "places", operation_id = "createIdc", params(DryRun),
    request_body = NewIdc,
    responses((status = 200, description = "Done.", body = Envelope<IdcView>), (status = 409, description = "The name is taken.", body = ErrorEnvelope)),
)]
async fn create_idc(
    State(state): State<ApiState>,
    requester: Requester,
    dry_run: DryRun,
    JsonBody(body): JsonBody<NewIdc>,
) -> Result<Reply<IdcView>, ApiError> {
    let NewIdc { name, description, region_id } = body;
    let new = NewPlace { name, description };
    let idc = create(&state, &requester, dry_run, PlaceKind::Idc, new, Some(region_id)).await?;
    let id = PlaceView::made(dry_run, idc.clone()).id;
    Ok(Reply(IdcView { id, ..idc_view(&state, idc).await? }))
}

/// Removes an IDC that is not used.
#[utoipa::path(
    delete, path = "/api/v2/compute/idcs/{id}", tag = "places", operation_id = "deleteIdc",
    params(("id" = i64, Path), DryRun),
    responses(
        (status = 200, description = "No data."),
        (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 409, description = "A host uses it.", body = ErrorEnvelope),
    ),
)]
async fn delete_idc(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf(id): PathOf<i64>,
    dry_run: DryRun,
) -> Result<NoData, ApiError> {
    delete(&state, &requester, dry_run, PlaceKind::Idc, id).await
}

/// Lists host types, the oldest first.
#[utoipa::path(
    get, path = "/api/v2/compute/hostTypes", tag = "places", operation_id = "listHostTypes",
    params(("page" = Option<i64>, Query), ("size" = Option<i64>, Query)),
    responses((status = 200, description = "Done.", body = Envelope<Page<PlaceView>>)),
)]
async fn list_host_types(State(state): State<ApiState>, params: Params) -> Result<Reply<Page<PlaceView>>, ApiError> {
    list(&state, PlaceKind::HostType, params).await
}

/// Returns a host type.
#[utoipa::path(
    get, path = "/api/v2/compute/hostTypes/{id}", tag = "places", operation_id = "getHostType", params(("id" = i64, Path)),
    responses((status = 200, description = "Done.", body = Envelope<PlaceView>), (status = 404, description = "It does not exist.", body = ErrorEnvelope)),
)]
async fn get_host_type(State(state): State<ApiState>, PathOf(id): PathOf<i64>) -> Result<Reply<PlaceView>, ApiError> {
    Ok(Reply(get(&state, PlaceKind::HostType, id).await?.into()))
}

/// Adds a host type.
#[utoipa::path(
    post, path = "/api/v2/compute/hostTypes", tag = "places", operation_id = "createHostType", params(DryRun),
    request_body = NewPlace,
    responses((status = 200, description = "Done.", body = Envelope<PlaceView>), (status = 409, description = "The name is taken.", body = ErrorEnvelope)),
)]
async fn create_host_type(
    State(state): State<ApiState>,
    requester: Requester,
    dry_run: DryRun,
    JsonBody(body): JsonBody<NewPlace>,
) -> Result<Reply<PlaceView>, ApiError> {
    let host_type = create(&state, &requester, dry_run, PlaceKind::HostType, body, None).await?;
    Ok(Reply(PlaceView::made(dry_run, host_type)))
}

/// Removes a host type that is not used.
#[utoipa::path(
    delete, path = "/api/v2/compute/hostTypes/{id}", tag = "places", operation_id = "deleteHostType",
    params(("id" = i64, Path), DryRun),
    responses(
        (status = 200, description = "No data."),
        (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 409, description = "A host uses it.", body = ErrorEnvelope),
    ),
)]
async fn delete_host_type(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf(id): PathOf<i64>,
    dry_run: DryRun,
) -> Result<NoData, ApiError> {
    delete(&state, &requester, dry_run, PlaceKind::HostType, id).await
}
