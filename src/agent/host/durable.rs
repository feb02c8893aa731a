//! Files that are whole after any crash.

use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

/// Replaces `path` by the JSON of `value`: temporary file, sync, rename, sync of the directory.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("the path has no directory"))?;
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    // In one piece: straight into a file, the serializer makes a system call for each word.
    file.write_all(&bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

/// Replaces `path` by `text`, as [`write_json`] does, with this mode whatever the umask.
pub(super) fn write_text(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("the path has no directory"))?;
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

/// None if there is no such file.
pub(super) fn read_text(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file; one that is gone already is as good.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Creates `path` with the JSON of `value`, whole from the first moment. `false`: somebody was first.
pub(super) fn claim_json(path: &Path, value: &impl Serialize) -> io::Result<bool> {
    let dir = path.parent().ok_or_else(|| io::Error::other("the path has no directory"))?;
    let mut file = tempfile::Builder::new().prefix(".claim-").tempfile_in(dir)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.as_file().sync_all()?;
    match fs::hard_link(file.path(), path) {
        Ok(()) => File::open(dir)?.sync_all().map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// None if there is no such file.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
