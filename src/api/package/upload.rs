//! An uploaded package on its way to its place: streamed to a temporary file, hashed, synced, checked, renamed.

use crate::{
    api::frame::error::{ApiError, code},
    coordinator::store::package::{self, Package},
    deb,
    steps::values::{PackageRef, Sha256},
    telemetry::chain,
};
use axum::{
    extract::multipart::{Field, MultipartError},
    http::StatusCode,
};
use rpm::{IndexSignatureTag, IndexTag, PackageMetadata};
use sha1::Sha1;
use sha2::Digest as _;
use std::{
    collections::HashSet,
    fs, io,
    io::{BufReader, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;

const TEMPORARY_PREFIX: &str = ".upload-";
/// Longest silence of an upload.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(60);
/// Room that an upload leaves on the disk.
const SPARE_BYTES: u64 = 64 << 20;

/// Removes what interrupted uploads and deletions left behind: temporary files, and files below a digest that no row
/// names. Called before requests are served.
pub fn clean_uploads(packages_dir: &Path, rows: &[Package]) -> io::Result<()> {
    let named: HashSet<PathBuf> = rows.iter().map(|row| package::path(packages_dir, row)).collect();
    for entry in fs::read_dir(packages_dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(TEMPORARY_PREFIX) {
            fs::remove_file(entry.path())?;
        } else if name.parse::<Sha256>().is_ok() && entry.file_type()?.is_dir() {
            clean_digest(&entry.path(), &named)?;
        }
    }
    Ok(())
}

fn clean_digest(directory: &Path, named: &HashSet<PathBuf>) -> io::Result<()> {
    let mut is_empty = true;
    for entry in fs::read_dir(directory)? {
        let (path, file_type) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        if named.contains(&path) || !file_type.is_file() {
            is_empty = false;
            continue;
        }
        tracing::info!(path = %path.display(), "a file of a package that is not kept is removed");
        fs::remove_file(path)?;
    }
    if is_empty { fs::remove_dir(directory) } else { Ok(()) }
}

/// A file that arrived whole.
pub(super) struct Received {
    pub(super) file: NamedTempFile,
    pub(super) size_bytes: u64,
    pub(super) sha1: String,
    pub(super) sha256: String,
}

/// What the header of a package says.
pub(super) struct Checked {
    pub(super) package: PackageRef,
    pub(super) installed_bytes: u64,
}

pub(super) async fn receive(field: &mut Field<'_>, directory: &Path, limit: u64) -> Result<Received, ApiError> {
    let file = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempfile_in(directory).map_err(write_error)?;
    let mut writer = tokio::fs::File::from_std(file.reopen().map_err(write_error)?);
    let (mut sha1, mut sha256, mut size_bytes) = (Sha1::new(), sha2::Sha256::new(), 0_u64);
    loop {
        let chunk = tokio::time::timeout(CHUNK_TIMEOUT, field.chunk()).await.map_err(|_elapsed| {
            let text = format_args!("the upload was silent for {} s", CHUNK_TIMEOUT.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, code::TIMED_OUT, text)
        })?;
        let Some(chunk) = chunk.map_err(|error| broken(&error))? else { break };
        // usize always fits: no chunk is larger than memory.
        size_bytes = size_bytes.saturating_add(chunk.len() as u64);
        if size_bytes > limit {
            let text = format_args!("a package has at most {limit} bytes");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, code::INVALID_REQUEST, text));
        }
        sha1.update(&chunk);
        sha256.update(&chunk);
        writer.write_all(&chunk).await.map_err(write_error)?;
    }
    writer.flush().await.map_err(write_error)?;
    writer.sync_all().await.map_err(write_error)?;
    Ok(Received { file, size_bytes, sha1: hex(&sha1.finalize()), sha256: hex(&sha256.finalize()) })
}

pub(super) fn broken(error: &MultipartError) -> ApiError {
    let text = format_args!("the upload was interrupted or is not multipart: {}", error.body_text());
    ApiError::new(error.status(), code::INVALID_REQUEST, text)
}

fn write_error(error: io::Error) -> ApiError {
    if error.kind() == io::ErrorKind::StorageFull { no_space() } else { ApiError::internal(&error) }
}

fn no_space() -> ApiError {
    ApiError::new(StatusCode::INSUFFICIENT_STORAGE, code::UNKNOWN, "the disk of the packages is full")
        .advise("free space on the coordinator's host or delete packages that are not used")
}

/// Refuses an upload that cannot fit. `length` is what the client announced, if it did.
pub(super) fn check_space(directory: &Path, length: Option<u64>) -> Result<(), ApiError> {
    let stat = nix::sys::statvfs::statvfs(directory).map_err(|errno| ApiError::internal(&errno))?;
    let available = stat.blocks_available().saturating_mul(stat.fragment_size());
    if available < length.unwrap_or(0).saturating_add(SPARE_BYTES) { Err(no_space()) } else { Ok(()) }
}

/// Reads the header, compares all digests that the package carries, and the name. Blocks.
pub(super) fn check(file: &mut fs::File, size_bytes: u64, file_name: &str) -> Result<Checked, ApiError> {
    let wrong = |why: &dyn std::fmt::Display| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "PKG10006",
            format_args!("{file_name} cannot be read as a package: {why}"),
        )
        .advise("compare its digest with that of its source, and upload it again")
    };
    if file_name.ends_with(".deb") {
        let control = deb::read(file).map_err(|error| wrong(&chain(&error)))?;
        return named(control.package, control.installed_bytes, file_name);
    }
    file.seek(SeekFrom::Start(0)).map_err(|error| ApiError::internal(&error))?;
    let mut reader = BufReader::new(&mut *file);
    let metadata = PackageMetadata::parse(&mut reader).map_err(|error| match error {
        rpm::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => wrong(&"it ends within its header"),
        error => wrong(&error),
    })?;
    metadata.verify_digests().map_err(|error| wrong(&error))?;
    let payload = hex(&hash(&mut reader).map_err(|error| ApiError::internal(&error))?);
    if let Ok(expected) = metadata.header.get_entry_data_as_string_array(IndexTag::RPMTAG_PAYLOADSHA256) {
        if expected.first().is_none_or(|expected| !expected.eq_ignore_ascii_case(&payload)) {
            return Err(wrong(&"its payload is damaged or truncated"));
        }
    } else {
        // Packages of old build systems carry no digest of the payload that is still considered safe, but its size.
        let start = metadata.get_package_segment_offsets().header;
        let stated = metadata
            .signature
            .get_entry_data_as_u64(IndexSignatureTag::RPMSIGTAG_LONGSIZE)
            .or_else(|_| metadata.signature.get_entry_data_as_u32(IndexSignatureTag::RPMSIGTAG_SIZE).map(u64::from));
        if !stated.is_ok_and(|stated| size_bytes == start.saturating_add(stated)) {
            return Err(wrong(&"its size is not what its header says"));
        }
    }
    if metadata.is_source_package() {
        let text = format_args!("{file_name} is a source package");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "PKG10013", text));
    }
    let part = |part: Result<&str, rpm::Error>| part.map(ToOwned::to_owned).map_err(|error| wrong(&error));
    let (name, version) = (part(metadata.get_name())?, part(metadata.get_version())?);
    let (release, architecture) = (part(metadata.get_release())?, part(metadata.get_arch())?);
    let package = PackageRef::new(&name, &version, &release, &architecture).map_err(|error| wrong(&error))?;
    named(package, metadata.get_installed_size().unwrap_or(size_bytes), file_name)
}

fn named(package: PackageRef, installed_bytes: u64, file_name: &str) -> Result<Checked, ApiError> {
    if package.file_name() != file_name {
        let text = format_args!("{file_name} is the package {package}");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "PKG10016", text)
            .advise(format!("name the file {}", package.file_name())));
    }
    Ok(Checked { package, installed_bytes })
}

fn hash(reader: &mut impl io::Read) -> io::Result<Vec<u8>> {
    let mut sha256 = sha2::Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = reader.read(&mut buffer)?;
        let Some(part) = buffer.get(..count).filter(|part| !part.is_empty()) else { break };
        sha256.update(part);
    }
    Ok(sha256.finalize().to_vec())
}

/// As [`package::path`] says it of a row.
pub(super) fn path(directory: &Path, sha256: &Sha256, name: &str) -> PathBuf {
    directory.join(sha256.as_str()).join(name)
}

/// Renames the file to `<directory>/<sha256>/<file name>`, safe against a power cut. Blocks.
pub(super) fn place(file: NamedTempFile, directory: &Path, sha256: &Sha256, name: &str) -> Result<(), ApiError> {
    let target = directory.join(sha256.as_str());
    let work = || -> io::Result<()> {
        match fs::create_dir(&target) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        file.persist(target.join(name)).map_err(|error| error.error)?;
        fs::File::open(&target)?.sync_all()?;
        fs::File::open(directory)?.sync_all()
    };
    work().map_err(write_error)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, digit: &str) -> Package {
        Package {
            id: 1,
            package: name.parse().unwrap(),
            kind: package::PackageKind::Obproxy,
            size_bytes: 1,
            installed_bytes: 1,
            sha1: String::new(),
            sha256: digit.repeat(64).parse().unwrap(),
            created_at: 0,
        }
    }

    #[test]
    fn a_start_removes_leftovers_and_no_file_that_a_row_names() {
        let directory = tempfile::tempdir().unwrap();
        let packages = directory.path();
        let kept = [row("obproxy-1.9.1.1-1.el7.x86_64.rpm", "a"), row("obproxy-1.9.1.2-1.el7.x86_64.rpm", "b")];
        let orphan = package::path(packages, &row("obproxy-1.9.1.3-1.el7.x86_64.rpm", "c"));
        // A second name below the digest of a package that is kept.
        let beside = packages.join("a".repeat(64)).join("other.rpm");
        let paths: Vec<_> = kept.iter().map(|row| package::path(packages, row)).collect();
        for path in paths.iter().chain([&orphan, &beside]) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "content").unwrap();
        }
        fs::write(packages.join(".upload-x"), "part").unwrap();
        fs::write(packages.join("notes"), "of an administrator").unwrap();
        for _ in 0..2 {
            clean_uploads(packages, &kept).unwrap();
            let mut left: Vec<_> = fs::read_dir(packages)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            left.sort();
            assert_eq!(left, ["a".repeat(64), "b".repeat(64), "notes".to_owned()]);
            assert!(paths.iter().all(|path| path.is_file()) && !beside.exists());
        }
    }
}
