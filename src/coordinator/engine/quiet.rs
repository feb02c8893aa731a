//! Hosts whose agents did not answer when outcomes were told again: they are asked ever more rarely, so that those that
//! are gone for good hold up nobody.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);

#[derive(Default)]
pub(super) struct QuietHosts(Mutex<HashMap<i64, Quiet>>);

struct Quiet {
    until: Instant,
    delay: Duration,
}

impl QuietHosts {
    /// Whether the host is better not asked yet.
    pub(super) fn rests(&self, host: i64) -> bool {
        self.lock().get(&host).is_some_and(|quiet| Instant::now() < quiet.until)
    }

    pub(super) fn did_not_answer(&self, host: i64) {
        let now = Instant::now();
        let mut hosts = self.lock();
        let quiet = hosts.entry(host).or_insert(Quiet { until: now, delay: FIRST / 2 });
        // Several tasks may have asked at the same time, and learned the same.
        if quiet.until <= now {
            quiet.delay = (quiet.delay * 2).min(LONGEST);
            quiet.until = now + quiet.delay;
        }
    }

    pub(super) fn answered(&self, host: i64) {
        self.lock().remove(&host);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Quiet>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn a_host_that_stays_away_is_asked_ever_more_rarely_and_at_least_once_an_hour() {
        let hosts = QuietHosts::default();
        let mut delays = Vec::new();
        for _ in 0..9 {
            assert!(!hosts.rests(1));
            hosts.did_not_answer(1);
            hosts.did_not_answer(1);
            let mut minutes = 0;
            while hosts.rests(1) {
                advance(Duration::from_secs(60)).await;
                minutes += 1;
            }
            delays.push(minutes);
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        hosts.answered(1);
        hosts.did_not_answer(1);
        advance(FIRST).await;
        assert!(!hosts.rests(1) && !hosts.rests(2));
    }
}
