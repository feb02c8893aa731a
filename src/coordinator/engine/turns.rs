//! How many tasks are under way at a time.
//!
//!  1. A task waits for its turn before anything of it is read, so thousands of tasks wait for the price of an entry.
//!  2. An operator's decision does not wait, nor what was handed out before a restart.
//!  3. A task that waits for nothing but hosts that do not answer lets another have its turn. It goes on without one when
//!     a host is back: the number is what the coordinator begins, and hosts that are gone hold up nobody.

use prometheus::IntGauge;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The turns of all tasks.
pub(super) struct Turns {
    permits: Arc<Semaphore>,
    waiting: IntGauge,
}

impl Turns {
    pub(super) fn new(most: usize, waiting: IntGauge) -> Self {
        Self { permits: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))), waiting }
    }

    /// Waits for a turn.
    pub(super) async fn next(&self) -> Arc<Turn> {
        self.waiting.inc();
        let _counted = Counted(self.waiting.clone());
        // Never closed.
        Turn::of(Arc::clone(&self.permits).acquire_owned().await.ok())
    }

    /// One for a task that does not wait: it counts if there is room.
    pub(super) fn at_once(&self) -> Arc<Turn> {
        Turn::of(Arc::clone(&self.permits).try_acquire_owned().ok())
    }
}

/// A task in the line; counted no longer, also if it leaves before its turn.
struct Counted(IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The turn of one task.
pub(super) struct Turn(Mutex<State>);

struct State {
    permit: Option<OwnedSemaphorePermit>,
    flights: usize,
    silent: usize,
}

impl Turn {
    fn of(permit: Option<OwnedSemaphorePermit>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { permit, flights: 0, silent: 0 })))
    }

    /// Counts one piece of work.
    pub(super) fn flight(self: &Arc<Self>) -> Flying {
        self.change(|state| state.flights += 1);
        Flying { turn: Arc::clone(self), is_silent: Mutex::new(false) }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        if state.flights > 0 && state.silent == state.flights {
            state.permit = None;
        }
    }

    #[cfg(test)]
    fn is_held(&self) -> bool {
        self.0.lock().unwrap().permit.is_some()
    }
}

/// One piece of work of a task that has its turn.
pub(super) struct Flying {
    turn: Arc<Turn>,
    is_silent: Mutex<bool>,
}

impl Flying {
    /// Whether it waits for a host that does not answer.
    pub(super) fn silent(&self, yes: bool) {
        let was = std::mem::replace(&mut *self.is_silent.lock().unwrap_or_else(PoisonError::into_inner), yes);
        match (was, yes) {
            (false, true) => self.turn.change(|state| state.silent += 1),
            (true, false) => self.turn.change(|state| state.silent -= 1),
            (false, false) | (true, true) => {}
        }
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        self.silent(false);
        // The next piece follows from this one: a task between two of them keeps its turn.
        self.turn.change(|state| state.flights -= 1);
    }
}

/// Work of a task that waits for nobody.
#[cfg(test)]
pub(super) fn alone() -> Arc<Flying> {
    Arc::new(Turn::of(None).flight())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn a_task_keeps_its_turn_until_all_that_it_waits_for_is_silent() {
        let waiting = IntGauge::new("waiting", "Tasks.").unwrap();
        let turns = Turns::new(1, waiting.clone());
        let turn = turns.next().now_or_never().unwrap();
        let (one, other) = (turn.flight(), turn.flight());
        one.silent(true);
        one.silent(true);
        assert!(turn.is_held());
        {
            let mut next = Box::pin(turns.next());
            assert!(next.as_mut().now_or_never().is_none());
            assert_eq!(waiting.get(), 1);
            one.silent(false);
            other.silent(true);
            one.silent(true);
            assert!(!turn.is_held());
            assert!(next.now_or_never().unwrap().is_held());
        }
        assert_eq!(waiting.get(), 0);
        let without_waiting = turns.at_once();
        assert!(without_waiting.is_held());
        assert!(!turns.at_once().is_held());
    }

    #[test]
    fn a_wait_that_is_given_up_is_not_counted_any_more() {
        let waiting = IntGauge::new("waiting", "Tasks.").unwrap();
        let turns = Turns::new(0, waiting.clone());
        drop(turns.next().now_or_never());
        assert_eq!(waiting.get(), 0);
    }
}
