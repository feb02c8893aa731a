//! What is remembered of logins: who passed a moment ago, who failed too often, and who waits for a check.

use super::error::ApiError;
use crate::coordinator::store::user;
use ring::{hmac, rand::SystemRandom};
use secrecy::{ExposeSecret as _, SecretString};
use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

const CACHE_TIME: Duration = Duration::from_secs(60);
const FAILURE_WINDOW: Duration = Duration::from_secs(300);
const MAX_FAILURES: u32 = 10;
/// Of all users together; behind one address there may be several who mistype.
const MAX_FAILURES_PER_ADDRESS: u32 = 50;
/// Entries of each table; more are not needed by honest clients.
const MAX_ENTRIES: usize = 4096;
const PARALLEL_CHECKS: usize = 2;
/// Requests that are checked or wait for it: as many as are checked in about two seconds.
const MAX_WAITING: usize = 64;
const MAX_WAITING_PER_ADDRESS: usize = 32;

/// What is remembered of earlier checks.
pub(in crate::api) struct Gate {
    /// None if the system returned no random bytes; then nothing is remembered.
    key: Option<hmac::Key>,
    pub(super) checks: Arc<Semaphore>,
    waiting: Arc<Mutex<HashMap<IpAddr, usize>>>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
pub(super) struct Memory {
    /// Keyed hash of a user, a password and the stored hash, until when it counts.
    pub(super) passed: HashMap<Vec<u8>, Instant>,
    failed: Failures<(String, IpAddr)>,
    failed_by_address: Failures<IpAddr>,
}

/// How often somebody failed since the beginning of a window.
struct Failures<K>(HashMap<K, (Instant, u32)>);

impl<K> Default for Failures<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone> Failures<K> {
    /// For how long somebody who failed `limit` times has to wait; None if they did not.
    fn locked_for(&self, who: &K, limit: u32) -> Option<Duration> {
        let (since, count) = self.0.get(who)?;
        let left = FAILURE_WINDOW.checked_sub(since.elapsed()).filter(|left| !left.is_zero())?;
        (*count >= limit).then_some(left)
    }

    fn count(&mut self, who: K) {
        if self.0.len() >= MAX_ENTRIES && !self.0.contains_key(&who) {
            self.0.retain(|_, (since, _)| since.elapsed() < FAILURE_WINDOW);
        }
        if self.0.len() >= MAX_ENTRIES
            && !self.0.contains_key(&who)
            && let Some(oldest) = self.0.iter().min_by_key(|(_, (since, _))| *since).map(|(who, _)| who.clone())
        {
            self.0.remove(&oldest);
        }
        let entry = self.0.entry(who).or_insert((Instant::now(), 0));
        if entry.0.elapsed() >= FAILURE_WINDOW {
            *entry = (Instant::now(), 0);
        }
        entry.1 = entry.1.saturating_add(1);
    }
}

/// What one guesser can have many of counts as one: a network of IPv6 has more addresses than any table entries.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// A place among those who wait for a check.
pub(super) struct Place {
    waiting: Arc<Mutex<HashMap<IpAddr, usize>>>,
    from: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = waiting.entry(self.from) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Gate {
    /// The hash of a password that is to be kept: as costly as a check, so it takes its turn with them.
    pub(in crate::api) async fn hash(&self, password: SecretString) -> Result<String, ApiError> {
        let turn = Arc::clone(&self.checks).acquire_owned().await.map_err(|error| ApiError::internal(&error))?;
        let hash = move || {
            // It goes on when its client hangs up, and so keeps its turn.
            let _kept = turn;
            user::hash(&password)
        };
        let hash = tokio::task::spawn_blocking(hash).await.map_err(|error| ApiError::internal(&error))?;
        Ok(hash?)
    }

    pub(in crate::api) fn new() -> Self {
        Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(),
            checks: Arc::new(Semaphore::new(PARALLEL_CHECKS)),
            waiting: Arc::default(),
            memory: Mutex::default(),
        }
    }

    pub(super) fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long nothing is looked at any more, because so many failures were counted; None if it is.
    pub(in crate::api) fn locked_for(&self, who: &(String, IpAddr)) -> Option<Duration> {
        self.memory().locked_for(who)
    }

    /// None if too many wait already.
    pub(super) fn place(&self, from: IpAddr) -> Option<Place> {
        let from = origin(from);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let own = waiting.get(&from).copied().unwrap_or(0);
        if own >= MAX_WAITING_PER_ADDRESS || waiting.values().sum::<usize>() >= MAX_WAITING {
            return None;
        }
        waiting.insert(from, own + 1);
        Some(Place { waiting: Arc::clone(&self.waiting), from })
    }

    pub(in crate::api) fn count_failure(&self, who: (String, IpAddr)) {
        self.memory().count_failure(who);
    }

    pub(super) fn fingerprint(&self, name: &str, password: &SecretString, hash: &str) -> Option<Vec<u8>> {
        let mut context = hmac::Context::with_key(self.key.as_ref()?);
        for part in [name, password.expose_secret(), hash] {
            context.update(&part.len().to_le_bytes());
            context.update(part.as_bytes());
        }
        Some(context.sign().as_ref().to_vec())
    }
}

impl Memory {
    pub(super) fn locked_for(&self, (name, address): &(String, IpAddr)) -> Option<Duration> {
        let from = origin(*address);
        let user = self.failed.locked_for(&(name.clone(), from), MAX_FAILURES);
        user.max(self.failed_by_address.locked_for(&from, MAX_FAILURES_PER_ADDRESS))
    }

    pub(super) fn count_failure(&mut self, (name, address): (String, IpAddr)) {
        let from = origin(address);
        self.failed_by_address.count(from);
        self.failed.count((name, from));
    }

    /// Of this user only: one who knows a password guesses others no faster by it.
    pub(super) fn forgive(&mut self, (name, address): &(String, IpAddr)) {
        self.failed.0.remove(&(name.clone(), origin(*address)));
    }

    pub(super) fn remember(&mut self, fingerprint: Vec<u8>) {
        if self.passed.len() >= MAX_ENTRIES {
            self.passed.retain(|_, until| *until > Instant::now());
        }
        if self.passed.len() < MAX_ENTRIES {
            self.passed.insert(fingerprint, Instant::now() + CACHE_TIME);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[tokio::test]
    async fn a_password_that_is_to_be_kept_is_hashed_in_its_turn() {
        let gate = Gate::new();
        let turns = Arc::clone(&gate.checks).acquire_many_owned(PARALLEL_CHECKS as u32).await.unwrap();
        let hash = gate.hash("correct horse".into());
        tokio::pin!(hash);
        assert!(tokio::time::timeout(Duration::from_millis(200), hash.as_mut()).await.is_err(), "others are checked");
        drop(turns);
        assert!(user::verify(&hash.await.unwrap_or_default(), &"correct horse".into()));
    }

    #[test]
    fn ten_failures_lock_one_user_at_one_address() {
        let mut memory = Memory::default();
        let who = ("admin".to_owned(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        for _ in 0..MAX_FAILURES {
            assert_eq!(memory.locked_for(&who), None);
            memory.count_failure(who.clone());
        }
        assert!(memory.locked_for(&who).is_some_and(|left| left <= FAILURE_WINDOW));
        assert_eq!(memory.locked_for(&(who.0.clone(), IpAddr::V4(Ipv4Addr::UNSPECIFIED))), None);
    }

    #[test]
    fn whoever_invents_names_is_locked_by_address() {
        let mut memory = Memory::default();
        let guesser = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for number in 0..MAX_FAILURES_PER_ADDRESS {
            assert_eq!(memory.locked_for(&("admin".to_owned(), guesser)), None);
            memory.count_failure((number.to_string(), guesser));
        }
        assert!(memory.locked_for(&("admin".to_owned(), guesser)).is_some());
        memory.forgive(&("admin".to_owned(), guesser));
        assert!(memory.locked_for(&("admin".to_owned(), guesser)).is_some(), "one login does not forgive the others");
    }

    #[test]
    fn a_full_table_counts_the_failures_of_who_was_not_in_it() {
        let mut memory = Memory::default();
        for number in 0..u32::try_from(MAX_ENTRIES + 10).unwrap() {
            memory.count_failure((number.to_string(), IpAddr::V4(number.into())));
        }
        let who = ("admin".to_owned(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        for _ in 0..MAX_FAILURES {
            memory.count_failure(who.clone());
        }
        assert!(memory.locked_for(&who).is_some());
    }

    #[test]
    fn one_network_of_ipv6_is_one_guesser() {
        let mut memory = Memory::default();
        let address = |last: u32| IpAddr::V6((0x2001_0db8_u128 << 96 | u128::from(last)).into());
        for number in 0..MAX_FAILURES {
            memory.count_failure(("admin".to_owned(), address(number)));
        }
        assert!(memory.locked_for(&("admin".to_owned(), address(4711))).is_some());
    }

    #[test]
    fn one_address_leaves_others_places_to_wait() {
        let gate = Gate::new();
        let (greedy, other) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let mut places: Vec<_> = std::iter::from_fn(|| gate.place(greedy)).collect();
        assert_eq!(places.len(), MAX_WAITING_PER_ADDRESS);
        let others: Vec<_> = std::iter::from_fn(|| gate.place(other)).collect();
        assert_eq!(others.len(), MAX_WAITING - MAX_WAITING_PER_ADDRESS);
        places.pop();
        assert!(gate.place(greedy).is_some());
    }

    #[test]
    fn tables_are_bounded() {
        let mut memory = Memory::default();
        for number in 0..MAX_ENTRIES + 10 {
            memory.count_failure((number.to_string(), IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap()))));
            memory.remember(number.to_le_bytes().to_vec());
        }
        let lengths = (memory.failed.0.len(), memory.failed_by_address.0.len(), memory.passed.len());
        assert_eq!(lengths, (MAX_ENTRIES, MAX_ENTRIES, MAX_ENTRIES));
    }
}
