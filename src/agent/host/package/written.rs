//! What rpm has written, made to outlive a power cut: of all that a transaction changes, rpm syncs its database alone.

use crate::agent::{
    host::{beneath::Directory, blocking, process::supervisor::failed},
    step::StepError,
};
use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

/// Syncs the files of a package, with the names on the way to them.
pub(super) async fn sync(files: Vec<PathBuf>) -> Result<(), StepError> {
    blocking(move || sync_files(&files).map_err(failed("the sync of the package's files"))).await
}

fn sync_files(files: &[PathBuf]) -> io::Result<()> {
    let mut directories = BTreeSet::new();
    for path in files {
        directories.extend(path.ancestors().skip(1));
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            continue;
        };
        let Some(parent) = directory(parent)? else { continue };
        match parent.file(name) {
            Ok(file) => file.sync_all()?,
            // A file that rpm was to leave out, a link, a directory.
            Err(error)
                if [ErrorKind::NotFound, ErrorKind::NotADirectory, ErrorKind::InvalidInput].contains(&error.kind()) => {
            }
            Err(error) => return Err(error),
        }
    }
    directories.into_iter().try_for_each(|path| directory(path)?.map_or(Ok(()), |directory| directory.sync()))
}

/// None also where the run user has put a link: what lies behind is his.
fn directory(path: &Path) -> io::Result<Option<Directory>> {
    match Directory::find(path) {
        Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(None),
        found => found,
    }
}
