//! How many files and connections a daemon may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than all listeners, calls and logs of a daemon need. Programs that a daemon starts inherit the limit, and some
/// (old rpm) walk through all descriptors that they could have, so a hard limit of a thousand million is not taken over.
const ENOUGH: u64 = 65_536;

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
