//! Work that leaves the event loop for another thread.
//!
//! In a simulation both kinds are over at once instead: another thread comes back at a moment that no seed decides.

use std::io;

/// Runs what would hold up the event loop in the runtime's pool; fails if it panics.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    #[cfg(test)]
    if crate::simulation::is_running() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// Waits for the thread of an SQLite connection.
pub(crate) async fn database<T>(work: impl Future<Output = T>) -> T {
    #[cfg(test)]
    if crate::simulation::is_running() {
        return futures_executor::block_on(work);
    }
    work.await
}
