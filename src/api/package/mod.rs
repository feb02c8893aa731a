//! `/api/v2/software-packages`

pub(super) mod upload;

use super::frame::{
    commit::commit_and,
    envelope::{Envelope, ErrorEnvelope, NoData, Page, Reply, ocp_time},
    error::{ApiError, SubError, code},
    extract::{Params, PathOf},
    limits::check_count,
    query::DryRun,
    requester::Requester,
    state::ApiState,
};
use crate::{
    coordinator::store::{
        StoreError, host,
        obproxy::{self, Obproxy},
        package::{self, NewPackage, Package, PackageFilter, PackageKind},
        task::{self, PackageUser},
    },
    steps::{
        UpgradeAgent,
        values::{PackageFormat, PackageRef, Sha256},
    },
};
use axum::{
    extract::{DefaultBodyLimit, FromRequest as _, Multipart, Request, State},
    http::{StatusCode, header},
};
use serde::Serialize;
use sqlx::AnyConnection;
use std::io;
use tempfile::NamedTempFile;
use tracing::Instrument as _;
use upload::Received;
use utoipa::ToSchema;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt as _},
    routes,
};

/// Values of one parameter of a list.
const MOST_VALUES: usize = 100;
/// Proxies and tasks that a refusal names.
const MOST_USERS: usize = 10;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list, upload_package).layer(DefaultBodyLimit::disable()))
        .routes(routes!(delete))
}

/// OCP's SoftwarePackageMeta.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PackageView {
    /// Omitted in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i64>,
    name: String,
    file_name: String,
    /// `rpm` or `deb`.
    extension: &'static str,
    /// Bytes of the file.
    size: i64,
    sha1: String,
    /// Not part of OCP's responses.
    sha256: String,
    #[schema(value_type = PackageKind)]
    r#type: &'static str,
    version: String,
    build_number: String,
    /// Distribution tag of the release, such as `el7`.
    operating_system: String,
    architecture: String,
    /// Omitted in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    create_time: Option<String>,
}

impl From<Package> for PackageView {
    fn from(package: Package) -> Self {
        let Package { id, package, kind, size_bytes, installed_bytes, sha1, sha256, created_at } = package;
        let planned = Self::from(NewPackage { package, kind, size_bytes, installed_bytes, sha1, sha256 });
        Self { id: Some(id), create_time: Some(ocp_time(created_at)), ..planned }
    }
}

/// As it would be kept.
impl From<NewPackage> for PackageView {
    fn from(package: NewPackage) -> Self {
        let name = &package.package;
        Self {
            id: None,
            name: name.name().to_owned(),
            file_name: name.file_name(),
            extension: name.format().as_str(),
            size: package.size_bytes,
            sha1: package.sha1,
            sha256: package.sha256.to_string(),
            version: name.version().to_owned(),
            build_number: name.build_number().to_owned(),
            operating_system: name.operating_system().to_owned(),
            architecture: name.architecture().to_owned(),
            create_time: None,
            r#type: package.kind.as_str(),
        }
    }
}

/// OCP's type of a package, by its name. Only the agent is installed by dpkg.
fn kind_of(package: &PackageRef) -> Option<PackageKind> {
    match (package.name(), package.format()) {
        (UpgradeAgent::PACKAGE, PackageFormat::Rpm | PackageFormat::Deb) => Some(PackageKind::Agent),
        ("obproxy" | "obproxy-ce", PackageFormat::Rpm) => Some(PackageKind::Obproxy),
        (name, PackageFormat::Rpm) if name.starts_with("oceanbase") => Some(PackageKind::ObServer),
        _ => None,
    }
}

/// Lists packages, newest first. Each parameter narrows the list; of several values of one, a package has any.
#[utoipa::path(
    get, path = "/api/v2/software-packages", tag = "packages", operation_id = "listPackages",
    params(
        ("keyword" = Option<String>, Query, description = "Part of the file name."),
        ("type" = inline(Option<Vec<PackageKind>>), Query), ("version" = Option<Vec<String>>, Query, description = "At most 100."),
        ("operatingSystem" = Option<Vec<String>>, Query, description = "Distribution tags of the releases, such as `el7`. At most 100."),
        ("architecture" = Option<Vec<String>>, Query, description = "At most 100."),
        ("page" = Option<i64>, Query), ("size" = Option<i64>, Query), ("sort" = Option<String>, Query),
    ),
    responses((status = 200, description = "Done.", body = Envelope<Page<PackageView>>)),
)]
async fn list(State(state): State<ApiState>, params: Params) -> Result<Reply<Page<PackageView>>, ApiError> {
    let paging = params.paging()?;
    let filter = filter(&params)?;
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let (found, total) = package::list(&mut connection, &filter, paging.size, paging.offset()).await?;
    Ok(Reply(paging.page(found.into_iter().map(Into::into).collect(), total)))
}

fn filter(params: &Params) -> Result<PackageFilter, ApiError> {
    let texts = |name: &str| {
        let values = params.list::<String>(name)?;
        check_count(name, values.len(), MOST_VALUES).map(|()| values)
    };
    let mut kinds: Vec<PackageKind> = Vec::new();
    for kind in params.list("type")? {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Ok(PackageFilter {
        keyword: params.text("keyword").map(ToOwned::to_owned),
        kinds,
        versions: texts("version")?,
        operating_systems: texts("operatingSystem")?,
        architectures: texts("architecture")?,
        ascending: !params.newest_first()?,
    })
}

/// The form of an upload.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the form; the handler reads the stream")]
struct UploadForm {
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// Uploads a package. Its file name must match its header. Uploading the same file again returns the existing package.
#[utoipa::path(
    post, path = "/api/v2/software-packages", tag = "packages", operation_id = "uploadPackage",
    params(DryRun),
    request_body(content = UploadForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "Done.", body = Envelope<PackageView>),
        (status = 400, description = "The file is not a package, is truncated, or its name does not match its header.", body = ErrorEnvelope),
        (status = 408, description = "The upload stalled for a minute.", body = ErrorEnvelope),
        (status = 409, description = "Another file with this name exists.", body = ErrorEnvelope),
        (status = 413, description = "The body is too large.", body = ErrorEnvelope), (status = 507, description = "The disk that stores the packages is full.", body = ErrorEnvelope),
    ),
)]
async fn upload_package(
    State(state): State<ApiState>,
    requester: Requester,
    DryRun(dry_run): DryRun,
    request: Request,
) -> Result<Reply<PackageView>, ApiError> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let limit = state.settings.max_package_bytes;
    upload::check_space(&state.settings.packages_dir, length.map(|length: u64| length.min(limit)))?;
    let mut form = Multipart::from_request(request, &state).await.map_err(|rejection| {
        let text = format_args!("the body must be multipart/form-data: {}", rejection.body_text());
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, code::INVALID_REQUEST, text)
    })?;
    let mut field = loop {
        match form.next_field().await.map_err(|error| upload::broken(&error))? {
            Some(field) if field.name() == Some("file") => break field,
            Some(_) => {}
            None => return Err(ApiError::invalid("file", "the form has no part named file")),
        }
    };
    let file_name = field.file_name().unwrap_or_default().to_owned();
    if ![".rpm", ".deb"].iter().any(|ending| file_name.ends_with(ending)) {
        let text = format_args!("{file_name:?} does not end in .rpm or .deb");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "PKG10003", text).about("file"));
    }
    file_name
        .parse::<PackageRef>()
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, "PKG10016", error).about("file"))?;
    let received = upload::receive(&mut field, &state.settings.packages_dir, limit).await?;
    let (file, new) = examine(received, file_name).await?;
    if dry_run {
        let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
        let known = known(&mut connection, &new).await?;
        return Ok(Reply(known.map_or_else(|| new.into(), Into::into)));
    }
    // The file is placed and its row committed, or neither, even if the client leaves in between.
    let taken = tokio::spawn(take_in(state, requester, file, new).in_current_span());
    Ok(Reply(taken.await.map_err(|error| ApiError::internal(&error))??.into()))
}

/// Reads the header of a file and checks its digests.
async fn examine(received: Received, file_name: String) -> Result<(NamedTempFile, NewPackage), ApiError> {
    let Received { file, size_bytes, sha1, sha256 } = received;
    let check = move || {
        let mut reader = file.reopen().map_err(|error| ApiError::internal(&error))?;
        upload::check(&mut reader, size_bytes, &file_name).map(|checked| (file, checked))
    };
    // The parser reads what anyone may upload: should it panic, it costs this upload only.
    let (file, checked) = tokio::task::spawn_blocking(check).await.map_err(|_panic| {
        ApiError::new(StatusCode::BAD_REQUEST, "PKG10006", "the file cannot be read as a package")
    })??;
    let kind = kind_of(&checked.package).ok_or_else(|| {
        let text = format_args!(
            "{} is neither an rpm of obproxy or oceanbase nor an oblet-agent package",
            checked.package.file_name()
        );
        ApiError::new(StatusCode::BAD_REQUEST, "PKG10013", text)
    })?;
    let new = NewPackage {
        package: checked.package,
        kind,
        size_bytes: i64::try_from(size_bytes).unwrap_or(i64::MAX),
        installed_bytes: i64::try_from(checked.installed_bytes).unwrap_or(i64::MAX),
        sha1,
        sha256: sha256.parse().map_err(|error| ApiError::internal(&error))?,
    };
    Ok((file, new))
}

/// The same package, if it was uploaded before.
async fn known(connection: &mut AnyConnection, new: &NewPackage) -> Result<Option<Package>, ApiError> {
    let name = new.package.file_name();
    match package::by_file_name(connection, &name).await? {
        Some(known) if known.sha256 != new.sha256 => {
            let text = format_args!("a package {name} with other content exists");
            Err(ApiError::conflict("PKG10002", text).advise("delete the old package first"))
        }
        known => Ok(known),
    }
}

async fn take_in(
    state: ApiState,
    requester: Requester,
    file: NamedTempFile,
    new: NewPackage,
) -> Result<Package, ApiError> {
    let mut transaction = state.store().begin().await?;
    if let Some(known) = known(&mut transaction, &new).await? {
        return Ok(known);
    }
    let (directory, digest, name) = (state.settings.packages_dir.clone(), new.sha256.clone(), new.package.file_name());
    let place = move || upload::place(file, &directory, &digest, &name);
    tokio::task::spawn_blocking(place).await.map_err(|error| ApiError::internal(&error))??;
    let (name, digest) = (new.package.file_name(), new.sha256.clone());
    let insert = async {
        let package = package::insert(&mut transaction, new).await?;
        let (object, detail) = (format!("package {}", package.id), package.package.file_name());
        requester.audit(&mut transaction, "package.upload", &object, &detail).await?;
        transaction.commit().await?;
        Ok::<_, StoreError>(package)
    };
    match insert.await {
        Ok(package) => {
            tracing::info!(package = %package.package, sha256 = %package.sha256, "package uploaded");
            Ok(package)
        }
        Err(error) => {
            // A commit that failed may have been one all the same. What cannot be looked at now, the next start removes.
            if let Err(error) = remove_file(&state, &name, &digest).await {
                tracing::warn!(%error, package = name, "the file of a package that is not kept is left to the next start");
            }
            Err(error.into())
        }
    }
}

/// Deletes a package that no proxy was installed from and that no unfinished task needs.
#[utoipa::path(
    delete, path = "/api/v2/software-packages/{id}", tag = "packages", operation_id = "deletePackage",
    params(("id" = i64, Path), DryRun),
    responses(
        (status = 200, description = "No data."), (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 409, description = "A proxy or an unfinished task uses it; `subErrors` name them.", body = ErrorEnvelope),
    ),
)]
async fn delete(
    State(state): State<ApiState>,
    requester: Requester,
    PathOf(id): PathOf<i64>,
    DryRun(dry_run): DryRun,
) -> Result<NoData, ApiError> {
    let mut transaction = state.store().begin().await?;
    let absent = || ApiError::not_found("PKG10014", format_args!("the package {id} does not exist"));
    let package = package::get(&mut transaction, id).await?.ok_or_else(absent)?;
    check_unused(&mut transaction, &package.package).await?;
    package::delete(&mut transaction, id).await?;
    requester.audit(&mut transaction, "package.delete", &format!("package {id}"), &package.package.file_name()).await?;
    if dry_run {
        transaction.rollback().await.map_err(StoreError::from)?;
        return Ok(NoData);
    }
    let remove = async move { remove_file(&state, &package.package.file_name(), &package.sha256).await };
    commit_and(transaction, remove).await??;
    Ok(NoData)
}

/// 409 if a proxy was installed from a package, or a task may still install it; the answer names them.
async fn check_unused(connection: &mut AnyConnection, package: &PackageRef) -> Result<(), ApiError> {
    // One more than is named tells that there are others.
    let most = i64::try_from(MOST_USERS + 1).unwrap_or(i64::MAX);
    let proxies = obproxy::proxies_of_version(connection, package, most).await?;
    let tasks = task::users_of_package(connection, package, most).await?;
    if proxies.is_empty() && tasks.is_empty() {
        return Ok(());
    }
    let clusters = obproxy::names(connection, proxies.iter().map(|proxy| proxy.cluster_id)).await?;
    let addresses = host::addresses(connection, proxies.iter().map(|proxy| proxy.host_id)).await?;
    let of_proxy = |proxy: &Obproxy| {
        let cluster = clusters.get(&proxy.cluster_id).map_or("", String::as_str);
        let address = addresses.get(&proxy.host_id).map(ToString::to_string).unwrap_or_default();
        let message = format!("{} in OBProxy cluster {cluster}, on host {} ({address})", proxy.status, proxy.host_id);
        SubError { field: format!("proxy {}", proxy.id), message }
    };
    let of_task = |task: &PackageUser| SubError {
        field: format!("task {}", task.id),
        message: format!("{}, {}", task.name, task.status),
    };
    // Of each kind some, even if there are many of the other.
    let named = proxies.iter().take(MOST_USERS - tasks.len().min(MOST_USERS / 2)).map(of_proxy);
    let mut users: Vec<SubError> = named.collect();
    users.extend(tasks.iter().take(MOST_USERS - users.len()).map(of_task));
    let others = if users.len() < proxies.len() + tasks.len() { " and others" } else { "" };
    let names: Vec<&str> = users.iter().map(|user| user.field.as_str()).collect();
    let text = format_args!("{package} is in use by {}{others}", names.join(", "));
    let advice = if proxies.is_empty() {
        "wait until the tasks are SUCCESSFUL; retry those that are FAILED, or roll them back"
    } else {
        "keep the package as long as a proxy uses it"
    };
    Err(ApiError::conflict("PKG10007", text).with_sub_errors(users).advise(advice))
}

/// Removes the file of a package that has no row, unless it was uploaded again meanwhile; holding the writer keeps it so.
async fn remove_file(state: &ApiState, name: &str, sha256: &Sha256) -> Result<(), StoreError> {
    let mut transaction = state.store().begin().await?;
    let same = package::by_file_name(&mut transaction, name).await?;
    if same.is_some_and(|same| same.sha256 == *sha256) {
        return Ok(());
    }
    let path = upload::path(&state.settings.packages_dir, sha256, name);
    match tokio::fs::remove_file(&path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "the file of a deleted package is still there");
        }
        _ => {
            if let Some(directory) = path.parent() {
                // A leftover empty directory does no harm.
                let _ = tokio::fs::remove_dir(directory).await;
            }
        }
    }
    Ok(())
}
