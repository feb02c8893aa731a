//! HTTP Basic authentication, the way in that OCP's scripts use.
//!
//! Argon2 is slow on purpose, so it runs beside the runtime, few at a time, and a check that succeeded is remembered for
//! a minute under a keyed hash. Nobody guesses for long, and nobody keeps others from being checked:
//!
//!  1. Failures are counted by user and address, and by address alone, so that inventing names gains nothing. Who has
//!     failed too often has to wait; what was waiting for its check is refused then too.
//!  2. A full table forgets what is oldest, and goes on counting.
//!  3. Few requests wait for a check, and from one address only a part of those; the others are told to come again.

use super::{error::ApiError, state::ApiState};
use crate::{api::system::scrape_token, coordinator::store::user};
use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::{hmac, rand::SystemRandom};
use secrecy::{ExposeSecret as _, SecretString};
use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
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
const COME_AGAIN: Duration = Duration::from_secs(2);
/// Checked for a user who does not exist, so that the time taken does not tell.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5bm8$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Who sent the request.
#[derive(Debug, Clone)]
pub(in crate::api) struct Caller {
    pub(in crate::api) name: String,
}

/// What is remembered of earlier checks.
pub(in crate::api) struct Gate {
    /// None if the system gave no random bytes; then nothing is remembered.
    key: Option<hmac::Key>,
    checks: Arc<Semaphore>,
    waiting: Arc<Mutex<HashMap<IpAddr, usize>>>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// Keyed hash of a user, a password and the stored hash, until when it counts.
    passed: HashMap<Vec<u8>, Instant>,
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
struct Place {
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
    pub(in crate::api) fn new() -> Self {
        Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(),
            checks: Arc::new(Semaphore::new(PARALLEL_CHECKS)),
            waiting: Arc::default(),
            memory: Mutex::default(),
        }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long nothing is looked at any more, because so many failures were counted; None if it is.
    pub(in crate::api) fn locked_for(&self, who: &(String, IpAddr)) -> Option<Duration> {
        self.memory().locked_for(who)
    }

    /// None if too many wait already.
    fn place(&self, from: IpAddr) -> Option<Place> {
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

    fn fingerprint(&self, name: &str, password: &SecretString, hash: &str) -> Option<Vec<u8>> {
        let mut context = hmac::Context::with_key(self.key.as_ref()?);
        for part in [name, password.expose_secret(), hash] {
            context.update(&part.len().to_le_bytes());
            context.update(part.as_bytes());
        }
        Some(context.sign().as_ref().to_vec())
    }
}

impl Memory {
    fn locked_for(&self, (name, address): &(String, IpAddr)) -> Option<Duration> {
        let from = origin(*address);
        let user = self.failed.locked_for(&(name.clone(), from), MAX_FAILURES);
        user.max(self.failed_by_address.locked_for(&from, MAX_FAILURES_PER_ADDRESS))
    }

    fn count_failure(&mut self, (name, address): (String, IpAddr)) {
        let from = origin(address);
        self.failed_by_address.count(from);
        self.failed.count((name, from));
    }

    /// Of this user only: one who knows a password guesses others no faster by it.
    fn forgive(&mut self, (name, address): &(String, IpAddr)) {
        self.failed.0.remove(&(name.clone(), origin(*address)));
    }

    fn remember(&mut self, fingerprint: Vec<u8>) {
        if self.passed.len() >= MAX_ENTRIES {
            self.passed.retain(|_, until| *until > Instant::now());
        }
        if self.passed.len() < MAX_ENTRIES {
            self.passed.insert(fingerprint, Instant::now() + CACHE_TIME);
        }
    }
}

/// Lets through who gives a user's password; the handlers find a [`Caller`].
pub(in crate::api) async fn authenticate(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let scraper = state.settings.scrape_token.admits(request.method(), route, request.headers());
    let checked = match scraper {
        Some(admitted) => admitted.map(|()| Caller { name: scrape_token::NAME.to_owned() }),
        None => check(&state, request.headers(), peer).await,
    };
    match checked {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => {
            let mut response = error.into_response();
            if response.status() == StatusCode::UNAUTHORIZED {
                let challenge = HeaderValue::from_static("Basic realm=\"oblet\", charset=\"UTF-8\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            response
        }
    }
}

async fn check(state: &ApiState, headers: &HeaderMap, peer: IpAddr) -> Result<Caller, ApiError> {
    let (name, password) = credentials(headers).ok_or_else(|| {
        ApiError::new(StatusCode::UNAUTHORIZED, "IAM10000", "the request names no user")
            .advise("send HTTP Basic credentials")
    })?;
    let who = (name, peer);
    refuse_locked(state, &who)?;
    let mut connection =
        state.store().gate_readers().acquire().await.map_err(crate::coordinator::store::StoreError::from)?;
    let user = user::by_name(&mut connection, &who.0).await?;
    drop(connection);
    let known = user.is_some();
    let hash = user.map_or_else(|| NOBODY.to_owned(), |user| user.password_hash);
    let fingerprint = state.gate.fingerprint(&who.0, &password, &hash);
    let remembered = |key: &Vec<u8>| state.gate.memory().passed.get(key).is_some_and(|until| *until > Instant::now());
    if known && fingerprint.as_ref().is_some_and(remembered) {
        return Ok(Caller { name: who.0 });
    }

    let place = state.gate.place(peer).ok_or_else(|| {
        let text = "too many logins wait to be checked";
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "IAM10003", text)
            .retry_after(COME_AGAIN)
            .advise("send the request again in a few seconds")
    })?;
    let checks = Arc::clone(&state.gate.checks);
    let permit = checks.acquire_owned().await.map_err(|error| ApiError::internal(&error))?;
    // Whoever guesses sends many before the first of them fails.
    refuse_locked(state, &who)?;
    let (gate, guesser) = (Arc::clone(&state.gate), who.clone());
    let check = move || {
        // A check goes on when its client hangs up, so it keeps its place until its outcome is counted.
        let _kept = (place, permit);
        let fits = user::verify(&hash, &password) && known;
        let mut memory = gate.memory();
        if fits {
            memory.forgive(&guesser);
            fingerprint.into_iter().for_each(|fingerprint| memory.remember(fingerprint));
        } else {
            memory.count_failure(guesser);
        }
        fits
    };
    let fits = tokio::task::spawn_blocking(check).await.map_err(|error| ApiError::internal(&error))?;
    if fits {
        return Ok(Caller { name: who.0 });
    }
    Err(ApiError::new(StatusCode::UNAUTHORIZED, "IAM10004", "the user name or the password is wrong"))
}

fn refuse_locked(state: &ApiState, who: &(String, IpAddr)) -> Result<(), ApiError> {
    let Some(left) = state.gate.locked_for(who) else { return Ok(()) };
    let text = format_args!("{} failed too often from {} and is locked there", who.0, who.1);
    Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "IAM10003", text)
        .retry_after(left)
        .advise(format!("wait {} minutes", left.as_secs().div_ceil(60).max(1))))
}

/// Whether a request came with this password.
pub(in crate::api) fn gave(headers: &HeaderMap, password: &SecretString) -> bool {
    credentials(headers).is_some_and(|(_, given)| given.expose_secret() == password.expose_secret())
}

fn credentials(headers: &HeaderMap) -> Option<(String, SecretString)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = zeroize::Zeroizing::new(BASE64_STANDARD.decode(encoded.trim()).ok()?);
    let (name, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((name.to_owned(), SecretString::from(password)))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn the_hash_of_nobody_can_be_checked_and_fits_nothing() {
        assert!(argon2::password_hash::phc::PasswordHash::new(NOBODY).is_ok());
        assert!(!user::verify(NOBODY, &"".into()));
    }

    #[test]
    fn a_password_may_hold_a_colon() {
        let mut headers = HeaderMap::new();
        let value = format!("Basic {}", BASE64_STANDARD.encode("admin:a:b"));
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        let (name, password) = credentials(&headers).unwrap();
        assert_eq!((name.as_str(), password.expose_secret()), ("admin", "a:b"));
    }
}
