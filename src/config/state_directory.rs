//! One program per state directory.

use crate::files::make_directory;
use std::{
    fs::{self, File, TryLockError},
    io::{self, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A killed program's child that has not executed its own program yet still has the lock, for a moment.
const PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

/// Why the state directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{path} cannot be used as the state directory")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is in use by another process (pid {holder})")]
    Held { path: PathBuf, holder: String },
}

/// The right to the state directory; given back when dropped, also by a crash.
#[derive(Debug)]
pub struct StateDirectory {
    _lock: File,
}

impl StateDirectory {
    /// Makes the directory if it is missing and locks it.
    pub fn lock(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::File { path: path.into(), source };
        make_directory(path, 0o700).map_err(failed)?;
        let file_path = path.join("lock");
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&file_path)
            .map_err(failed)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(POLL),
                Err(TryLockError::WouldBlock) => {
                    let holder = fs::read_to_string(&file_path).unwrap_or_default();
                    return Err(LockError::Held { path: path.into(), holder: holder.trim().into() });
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
        let mut name_holder = || -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        name_holder().map_err(failed)?;
        Ok(Self { _lock: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_given_back_a_moment_later_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let first = StateDirectory::lock(directory.path()).unwrap();
        let second = std::thread::spawn({
            let path = directory.path().to_owned();
            move || StateDirectory::lock(&path)
        });
        drop(first);
        second.join().unwrap().unwrap();
    }

    #[test]
    fn a_second_program_is_told_who_holds_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let first = StateDirectory::lock(&state).unwrap();
        let refused = StateDirectory::lock(&state).unwrap_err();
        assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        StateDirectory::lock(&state).unwrap();
    }
}
