//! Hosts whose agents did not answer: they are asked ever more rarely, so that those that are gone for good hold up
//! nobody.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

pub(super) struct QuietHosts<Host> {
    first: Duration,
    longest: Duration,
    quiet: Mutex<HashMap<Host, Quiet>>,
}

struct Quiet {
    until: Instant,
    delay: Duration,
}

impl<Host: Eq + Hash> QuietHosts<Host> {
    /// A host is left alone for `first`, and twice as long each time, up to `longest`.
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, quiet: Mutex::default() }
    }

    /// Whether the host is better not asked yet.
    pub(super) fn rests(&self, host: &Host) -> bool {
        self.lock().get(host).is_some_and(|quiet| Instant::now() < quiet.until)
    }

    pub(super) fn did_not_answer(&self, host: Host) {
        let now = Instant::now();
        let mut hosts = self.lock();
        let quiet = hosts.entry(host).or_insert(Quiet { until: now, delay: self.first / 2 });
        // Several tasks may have asked at the same time, and learned the same.
        if quiet.until <= now {
            quiet.delay = (quiet.delay * 2).min(self.longest);
            quiet.until = now + quiet.delay;
        }
    }

    pub(super) fn answered(&self, host: &Host) {
        self.lock().remove(host);
    }

    pub(super) fn retain(&self, is_known: impl Fn(&Host) -> bool) {
        self.lock().retain(|host, _| is_known(host));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Host, Quiet>> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn a_host_that_stays_away_is_asked_ever_more_rarely_and_at_least_once_an_hour() {
        let first = Duration::from_secs(60);
        let hosts = QuietHosts::new(first, Duration::from_secs(3600));
        let mut delays = Vec::new();
        for _ in 0..9 {
            assert!(!hosts.rests(&1));
            hosts.did_not_answer(1);
            hosts.did_not_answer(1);
            let mut minutes = 0;
            while hosts.rests(&1) {
                advance(Duration::from_secs(60)).await;
                minutes += 1;
            }
            delays.push(minutes);
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        hosts.answered(&1);
        hosts.did_not_answer(1);
        advance(first).await;
        assert!(!hosts.rests(&1) && !hosts.rests(&2));
    }
}
