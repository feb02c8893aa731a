//! News of commits: like a watch channel, but whoever waits is woken in the order in which the waiting began. A watch
//! channel wakes in a random order, and a simulation could not repeat what follows from it.

use super::JournalError;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use tokio::sync::Notify;

#[derive(Default)]
struct Shared {
    count: AtomicU64,
    closed: AtomicBool,
    changed: Notify,
}

/// The end of the writer.
#[derive(Default)]
pub(super) struct Announcer(Arc<Shared>);

/// An end that listens; begins with what was committed so far as seen.
#[derive(Clone)]
pub struct Commits {
    shared: Arc<Shared>,
    seen: u64,
}

impl Announcer {
    pub(super) fn listener(&self) -> Commits {
        Commits { shared: Arc::clone(&self.0), seen: self.0.count.load(Ordering::Acquire) }
    }

    pub(super) fn committed(&self) {
        self.0.count.fetch_add(1, Ordering::Release);
        self.0.changed.notify_waiters();
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.changed.notify_waiters();
    }
}

impl Commits {
    /// How many there were; from here on only later ones count.
    pub fn update(&mut self) -> u64 {
        self.seen = self.shared.count.load(Ordering::Acquire);
        self.seen
    }

    /// Waits for a commit that was not seen yet.
    pub async fn changed(&mut self) -> Result<(), JournalError> {
        loop {
            let changed = self.shared.changed.notified();
            let count = self.shared.count.load(Ordering::Acquire);
            if count != self.seen {
                self.seen = count;
                return Ok(());
            }
            if self.shared.closed.load(Ordering::Acquire) {
                return Err(JournalError::Stopped);
            }
            changed.await;
        }
    }
}
