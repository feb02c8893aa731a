//! Files that are whole after any crash. Each is written in one piece: straight into a file, the serializer makes a system
//! call for each word.

use crate::files;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File, Permissions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

/// Makes a directory that only the owner may enter, for good, and those above it that are missing.
pub(in crate::agent) fn make_directory(path: &Path) -> io::Result<()> {
    files::make_directory(path, 0o700)
}

/// Replaces `path` by the JSON of `value`: temporary file, sync, rename, sync of the directory.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("the path has no directory"))?;
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
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

/// The same for whoever reads it before the machine goes down: after a power cut it may be missing or empty. For what
/// means nothing then.
pub(super) fn write_json_for_this_boot(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("the path has no directory"))?;
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// The same; after a power cut it is either missing or whole.
pub(super) fn write_json_or_lose(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("the path has no directory"))?;
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.as_file().sync_data()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// The end of a log, at most its last `limit` bytes.
pub(super) fn read_end(path: &Path, limit: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// None if there is no such file.
pub(super) fn read_text(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file for good: no power cut brings it back. One that is gone already is as good.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_log_only_the_end_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        // Longer than any memory: what is not read costs nothing.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"the last words").unwrap();
        assert_eq!(read_end(&path, 10).unwrap(), "last words");
        fs::write(&path, "short").unwrap();
        assert_eq!(read_end(&path, 10).unwrap(), "short");
    }

    #[test]
    fn what_is_written_for_this_boot_is_whole_and_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value");
        write_json_for_this_boot(&path, &1).unwrap();
        write_json_or_lose(&path, &2).unwrap();
        assert_eq!(read_json::<u32>(&path).unwrap(), Some(2));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
