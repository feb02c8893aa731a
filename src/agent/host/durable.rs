//! Files that are whole after any crash.

use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

/// Replaces `path` by the JSON of `value`: temporary file, sync, rename, sync of the directory.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("the path has no directory"))?;
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    serde_json::to_writer_pretty(&mut file, value)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

/// Creates `path` with the JSON of `value`, whole from the first moment. `false`: somebody was first.
pub(super) fn claim_json(path: &Path, value: &impl Serialize) -> io::Result<bool> {
    let dir = path.parent().ok_or_else(|| io::Error::other("the path has no directory"))?;
    let mut file = tempfile::Builder::new().prefix(".claim-").tempfile_in(dir)?;
    serde_json::to_writer(&mut file, value)?;
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
