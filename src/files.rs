//! Files that are whole after any crash.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

/// Replaces a file so that a reader sees the old or the new content, whatever dies meanwhile, and the mode is right from
/// the first byte: temporary file, sync, rename, sync of the directory.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    replace_by(path, mode, |file| file.write_all(content))
}

fn replace_by(path: &Path, mode: u32, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = Path::new(&name);
    let make = || {
        // Of a program that died.
        let _ = fs::remove_file(temporary);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(temporary)?;
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(temporary, path)?;
        sync_directory_of(path)
    };
    make().inspect_err(|_| {
        // A full disk needs the room more than anyone needs half a file.
        let _ = fs::remove_file(temporary);
    })
}

/// Makes a directory with this mode, and those above it that are missing. What is synced in it later is there after a
/// power cut only if the names on the way to it are, so each is synced.
pub(crate) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => sync_directory_of(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directory(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }, mode)?;
            make_directory(path, mode)
        }
        Err(_) if path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes what was renamed or removed in the directory of `path` last.
pub(crate) fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_write_that_breaks_off_leaves_the_file_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret.key");
        let half = |file: &mut File| {
            file.write_all(b"hal")?;
            Err(io::Error::other("the disk is full"))
        };
        replace_by(&path, 0o600, half).unwrap_err();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        // What a program left that died instead is in nobody's way.
        fs::write(directory.path().join("secret.key.tmp"), "hal").unwrap();
        replace(&path, b"whole", 0o600).unwrap();
        replace_by(&path, 0o600, half).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_directory_is_made_with_those_above_it_and_only_if_nothing_is_in_the_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        for _ in 0..2 {
            make_directory(&path, 0o700).unwrap();
        }
        for made in [&path, path.parent().unwrap()] {
            assert_eq!(fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o700);
        }
        fs::write(directory.path().join("file"), "").unwrap();
        assert_eq!(
            make_directory(&directory.path().join("file"), 0o700).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert!(make_directory(&directory.path().join("file/below"), 0o700).is_err());
        // Of a file in the working directory; it is there.
        make_directory(Path::new(""), 0o700).unwrap();
    }
}
