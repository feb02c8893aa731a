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
use std::io;
use upload::Received;
use utoipa::ToSchema;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt as _},
    routes,
};

/// The one route whose requests may be large and slow.
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
    id: i64,
    name: String,
    file_name: String,
    /// `rpm` or `deb`.
    extension: &'static str,
    /// Bytes of the file.
    size: i64,
    sha1: String,
    /// Not part of OCP's answers.
    sha256: String,
    r#type: String,
    version: String,
    build_number: String,
    /// Distribution tag of the release, such as `el7`.
    operating_system: String,
    architecture: String,
    create_time: String,
}

impl From<Package> for PackageView {
    fn from(package: Package) -> Self {
        let name = &package.package;
        let system = name.release().strip_prefix(name.build_number()).unwrap_or_default();
        Self {
            id: package.id,
            name: name.name().to_owned(),
            file_name: name.file_name(),
            extension: name.format().as_str(),
            size: package.size_bytes,
            sha1: package.sha1.clone(),
            sha256: package.sha256.to_string(),
            version: name.version().to_owned(),
            build_number: name.build_number().to_owned(),
            operating_system: system.trim_start_matches('.').to_owned(),
            architecture: name.architecture().to_owned(),
            create_time: ocp_time(package.created_at),
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

/// Takes a package. Its file name has to be what its header says. The same file again is answered like the first time.
#[utoipa::path(
    post, path = "/api/v2/software-packages", tag = "packages", operation_id = "uploadPackage",
    request_body(content = UploadForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "Done.", body = Envelope<PackageView>),
        (status = 400, description = "Not a package, truncated, or wrongly named.", body = ErrorEnvelope),
        (status = 409, description = "Another file of this name is there.", body = ErrorEnvelope),
        (status = 413, description = "The body is too long.", body = ErrorEnvelope), (status = 507, description = "The disk of the packages is full.", body = ErrorEnvelope),
    ),
)]
async fn upload_package(
    State(state): State<ApiState>,
    requester: Requester,
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
            None => return Err(ApiError::invalid("file", "the form has no such part")),
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
    let package = take_in(&state, &requester, received, file_name).await?;
    tracing::info!(package = %package.package, sha256 = %package.sha256, "package uploaded");
    Ok(Reply(package.into()))
}

async fn take_in(
    state: &ApiState,
    requester: &Requester,
    received: Received,
    file_name: String,
) -> Result<Package, ApiError> {
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
        let text =
            format_args!("{} is no rpm of obproxy or oceanbase, and no oblet-agent", checked.package.file_name());
        ApiError::new(StatusCode::BAD_REQUEST, "PKG10013", text)
    })?;
    let sha256: Sha256 = sha256.parse().map_err(|error| ApiError::internal(&error))?;
    let name = checked.package.file_name();

    let mut transaction = state.store().begin().await?;
    if let Some(known) = package::by_file_name(&mut transaction, &name).await? {
        if known.sha256 == sha256 {
            return Ok(known);
        }
        let text = format_args!("a package {name} with other content exists");
        return Err(ApiError::conflict("PKG10002", text).advise("delete the old package first"));
    }
    let (directory, digest) = (state.settings.packages_dir.clone(), sha256.clone());
    tokio::task::spawn_blocking(move || upload::place(file, &directory, &digest, &name))
        .await
        .map_err(|error| ApiError::internal(&error))??;
    let new = NewPackage {
        package: checked.package,
        kind: kind.to_owned(),
        size_bytes: i64::try_from(size_bytes).unwrap_or(i64::MAX),
        installed_bytes: i64::try_from(checked.installed_bytes).unwrap_or(i64::MAX),
        sha1,
        sha256,
    };
    let package = package::insert(&mut transaction, new).await?;
    let (object, detail) = (format!("package {}", package.id), package.package.file_name());
    requester.audit(&mut transaction, "package.upload", &object, &detail).await?;
    transaction.commit().await.map_err(StoreError::from)?;
    Ok(package)
}

/// Deletes a package that no proxy uses.
#[utoipa::path(
    delete, path = "/api/v2/software-packages/{id}", tag = "packages", operation_id = "deletePackage",
    params(("id" = i64, Path), DryRun),
    responses(
        (status = 200, description = "No data."), (status = 404, description = "There is no such thing.", body = ErrorEnvelope),
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
        return Err(ApiError::conflict("PKG10007", text).advise("keep it as long as a proxy has it"));
    }
    package::delete(&mut transaction, id).await?;
    requester.audit(&mut transaction, "package.delete", &format!("package {id}"), &package.package.file_name()).await?;
    if dry_run {
        transaction.rollback().await.map_err(StoreError::from)?;
        return Ok(NoData);
    }
    commit_and(transaction, async move { remove_file(&state, &package).await }).await??;
    Ok(NoData)
}

/// Removes the file of a deleted package, unless it was uploaded again meanwhile; holding the writer keeps it so.
async fn remove_file(state: &ApiState, package: &Package) -> Result<(), StoreError> {
    let mut transaction = state.store().begin().await?;
    if package::by_file_name(&mut transaction, &package.package.file_name()).await?.is_some() {
        return Ok(());
    }
    let path = package::path(&state.settings.packages_dir, package);
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
