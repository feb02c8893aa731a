//! The files and connections that a daemon may have open, and those that it was given open.

use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use std::{
    fs, io,
    os::fd::{BorrowedFd, RawFd},
};

/// More than all listeners, calls and logs of a daemon need. Programs that a daemon starts inherit the limit, and some
/// (old rpm) walk through all descriptors that they could have, so a hard limit of a thousand million is not taken over.
const ENOUGH: u64 = 65_536;
const OWN: &str = "/proc/self/fd";

/// Raises the soft limit to the hard one: shells and old service managers start programs with 1024, which strangers
/// with sockets use up. Without success the daemon works on; whoever connects then waits for a free descriptor.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }) {
        tracing::warn!(%error, wanted, "the limit of open files cannot be raised");
    }
}

/// How many files and connections this process may have open.
pub(crate) fn limit() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Keeps what whoever started this program has left open from the programs that it starts: a proxy lives for years, and would
/// keep their file open, their lock held or their pipe without an end. What this program opens itself is not inherited anyway.
pub fn keep_from_children() -> io::Result<()> {
    let open: Vec<RawFd> = fs::read_dir(OWN)
        .map_err(|error| io::Error::other(format!("{OWN} cannot be read: {error}")))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > rustix::stdio::raw_stderr())
        .collect();
    for number in open {
        #[expect(unsafe_code, reason = "what was open before the start has no owner in the program")]
        // SAFETY: borrowed for one call, which answers that a number is closed by now, as that of the directory is.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        match fcntl_setfd(descriptor, FdFlags::CLOEXEC) {
            Ok(()) | Err(rustix::io::Errno::BADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
