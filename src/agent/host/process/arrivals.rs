//! Files that come to a directory, noticed at once and without looking for them.

use rustix::{
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::{Errno, read},
};
use std::{io, os::fd::OwnedFd, path::Path};
use tokio::io::unix::AsyncFd;

/// Enough for some dozen events: which file came is of no interest, so none is read one by one.
const EVENT_BYTES: usize = 4 << 10;

pub(super) struct Arrivals(AsyncFd<OwnedFd>);

impl Arrivals {
    /// From here on, files that are renamed into `directory` are noticed. A system has few of these watches for each
    /// user, so whoever needs one must do without, too.
    pub(super) fn at(directory: &Path) -> io::Result<Self> {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&events, directory, WatchFlags::MOVED_TO | WatchFlags::ONLYDIR)?;
        #[expect(unsafe_code, reason = "tokio has no safe way to wait for a descriptor that is no socket or pipe")]
        // SAFETY: an `OwnedFd` is one descriptor, and stays open until it is dropped with the `AsyncFd`.
        let events = unsafe { AsyncFd::register(events) }?;
        Ok(Self(events))
    }

    /// Comes back when files have come since the last call. May be dropped at any moment: nothing is lost.
    pub(super) async fn next(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut events = [0; EVENT_BYTES];
            match read(self.0.get_ref(), &mut events) {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, time::Duration};
    use tokio::time::timeout;

    #[tokio::test]
    async fn every_file_that_is_moved_to_the_directory_is_noticed_once_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let arrivals = Arrivals::at(directory.path()).unwrap();
        let file = |name: &str| directory.path().join(name);
        fs::write(file("new"), "").unwrap();
        assert!(timeout(Duration::from_millis(20), arrivals.next()).await.is_err());
        for place in ["first", "second"] {
            fs::write(file("new"), "").unwrap();
            fs::rename(file("new"), file(place)).unwrap();
            timeout(Duration::from_secs(20), arrivals.next()).await.unwrap().unwrap();
            assert!(timeout(Duration::from_millis(20), arrivals.next()).await.is_err(), "{place}");
        }
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_told() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Arrivals::at(&directory.path().join("gone")).is_err());
    }
}
