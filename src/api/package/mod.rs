//! `/api/v2/software-packages`

pub(super) mod upload;

use super::frame::{
    commit::commit_and,
    envelope::{Envelope, ErrorEnvelope, NoData, Page, Reply, ocp_time},
    error::{ApiError, code},
    extract::{Params, PathOf},
    query::DryRun,
    requester::Requester,
    state::ApiState,
};
use crate::{
    coordinator::store::{
        StoreError, obproxy,
        package::{self, NewPackage, Package},
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

/// OCP's type of the packages that install obproxy.
pub(super) const OBPROXY_PACKAGE: &str = "OBPROXY_INSTALL_PACKAGE";
pub(super) const AGENT_PACKAGE: &str = "OCP_AGENT_INSTALL_PACKAGE";

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
    r#type: String,
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
        let system = name.release().strip_prefix(name.build_number()).unwrap_or_default();
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
            operating_system: system.trim_start_matches('.').to_owned(),
            architecture: name.architecture().to_owned(),
            create_time: None,
            r#type: package.kind,
        }
    }
}

/// OCP's type of a package, by its name. Only the agent is installed by dpkg.
fn kind_of(package: &PackageRef) -> Option<&'static str> {
    match (package.name(), package.format()) {
        (UpgradeAgent::PACKAGE, PackageFormat::Rpm | PackageFormat::Deb) => Some(AGENT_PACKAGE),
        ("obproxy" | "obproxy-ce", PackageFormat::Rpm) => Some(OBPROXY_PACKAGE),
        (name, PackageFormat::Rpm) if name.starts_with("oceanbase") => Some("OB_SERVER_INSTALL_PACKAGE"),
        _ => None,
    }
}

/// Lists packages, newest first.
#[utoipa::path(
    get, path = "/api/v2/software-packages", tag = "packages", operation_id = "listPackages",
    params(
        ("keyword" = Option<String>, Query, description = "Part of the file name."),
        ("type" = Option<Vec<String>>, Query), ("version" = Option<Vec<String>>, Query),
        ("operatingSystem" = Option<Vec<String>>, Query), ("architecture" = Option<Vec<String>>, Query),
        ("page" = Option<i64>, Query), ("size" = Option<i64>, Query), ("sort" = Option<String>, Query),
    ),
    responses((status = 200, description = "Done.", body = Envelope<Page<PackageView>>)),
)]
async fn list(State(state): State<ApiState>, params: Params) -> Result<Reply<Page<PackageView>>, ApiError> {
    let paging = params.paging()?;
    let descending = params.newest_first()?;
    let wanted = |name: &str| params.list::<String>(name);
    let filters = [wanted("type")?, wanted("version")?, wanted("operatingSystem")?, wanted("architecture")?];
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let mut views: Vec<PackageView> = package::list(&mut connection).await?.into_iter().map(Into::into).collect();
    views.retain(|view| {
        let values = [&view.r#type, &view.version, &view.operating_system, &view.architecture];
        let fits = |(filter, value): (&Vec<String>, &String)| filter.is_empty() || filter.contains(value);
        filters.iter().zip(values).all(fits) && params.text("keyword").is_none_or(|word| view.file_name.contains(word))
    });
    if !descending {
        views.reverse();
    }
    let total = i64::try_from(views.len()).unwrap_or(i64::MAX);
    let skip = usize::try_from(paging.offset()).unwrap_or(usize::MAX);
    let size = usize::try_from(paging.size).unwrap_or(usize::MAX);
    Ok(Reply(paging.page(views.into_iter().skip(skip).take(size).collect(), total)))
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
        kind: kind.to_owned(),
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

/// Deletes a package that no proxy uses.
#[utoipa::path(
    delete, path = "/api/v2/software-packages/{id}", tag = "packages", operation_id = "deletePackage",
    params(("id" = i64, Path), DryRun),
    responses(
        (status = 200, description = "No data."), (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 409, description = "A proxy uses it.", body = ErrorEnvelope),
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
    if let Some(proxy) = obproxy::proxy_of_version(&mut transaction, &package.package).await? {
        let text = format_args!("{} is in use by proxy {}", package.package, proxy.id);
        return Err(ApiError::conflict("PKG10007", text).advise("keep it as long as a proxy uses it"));
    }
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
