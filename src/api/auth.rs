//! HTTP Basic authentication, the way in that OCP's scripts use.
//!
//! Argon2 is slow on purpose, so it runs beside the runtime, few at a time, and a check that succeeded is remembered for
//! a minute under a keyed hash. Who fails too often from one address has to wait.

use super::{error::ApiError, state::ApiState};
use crate::coordinator::store::users;
use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::{hmac, rand::SystemRandom};
use secrecy::{ExposeSecret as _, SecretString};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

const CACHE_TIME: Duration = Duration::from_secs(60);
const FAILURE_WINDOW: Duration = Duration::from_secs(300);
const MAX_FAILURES: u32 = 10;
/// Entries of each table; more are not needed by honest clients.
const MAX_ENTRIES: usize = 4096;
const PARALLEL_CHECKS: usize = 2;
/// Checked for a user who does not exist, so that the time taken does not tell.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5bm8$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Who sent the request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) name: String,
}

/// What is remembered of earlier checks.
pub(super) struct Gate {
    /// None if the system gave no random bytes; then nothing is remembered.
    key: Option<hmac::Key>,
    checks: Semaphore,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// Keyed hash of a user, a password and the stored hash, until when it counts.
    passed: HashMap<Vec<u8>, Instant>,
    /// Failures since the beginning of a window.
    failed: HashMap<(String, IpAddr), (Instant, u32)>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(),
            checks: Semaphore::new(PARALLEL_CHECKS),
            memory: Mutex::default(),
        }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether so many failures were counted that nothing is looked at any more.
    pub(super) fn is_locked(&self, who: &(String, IpAddr)) -> bool {
        self.memory().is_locked(who)
    }

    pub(super) fn count_failure(&self, who: (String, IpAddr)) {
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
    fn is_locked(&self, who: &(String, IpAddr)) -> bool {
        self.failed.get(who).is_some_and(|(since, count)| since.elapsed() < FAILURE_WINDOW && *count >= MAX_FAILURES)
    }

    fn count_failure(&mut self, who: (String, IpAddr)) {
        if self.failed.len() >= MAX_ENTRIES {
            self.failed.retain(|_, (since, _)| since.elapsed() < FAILURE_WINDOW);
        }
        if self.failed.len() >= MAX_ENTRIES {
            return;
        }
        let entry = self.failed.entry(who).or_insert((Instant::now(), 0));
        if entry.0.elapsed() >= FAILURE_WINDOW {
            *entry = (Instant::now(), 0);
        }
        entry.1 += 1;
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
pub(super) async fn authenticate(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    match check(&state, request.headers(), peer).await {
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
    if state.gate.is_locked(&who) {
        let text = format_args!("{} failed {MAX_FAILURES} times from {peer} and is locked there", who.0);
        return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "IAM10003", text)
            .advise(format!("wait {} minutes", FAILURE_WINDOW.as_secs() / 60)));
    }
    let mut connection =
        state.store().readers().acquire().await.map_err(crate::coordinator::store::StoreError::from)?;
    let user = users::by_name(&mut connection, &who.0).await?;
    drop(connection);
    let known = user.is_some();
    let hash = user.map_or_else(|| NOBODY.to_owned(), |user| user.password_hash);
    let fingerprint = state.gate.fingerprint(&who.0, &password, &hash);
    let remembered = |key: &Vec<u8>| state.gate.memory().passed.get(key).is_some_and(|until| *until > Instant::now());
    if known && fingerprint.as_ref().is_some_and(remembered) {
        return Ok(Caller { name: who.0 });
    }

    let permit = state.gate.checks.acquire().await.map_err(|error| ApiError::internal(&error))?;
    let fits = tokio::task::spawn_blocking(move || users::verify(&hash, &password))
        .await
        .map_err(|error| ApiError::internal(&error))?;
    drop(permit);
    let mut memory = state.gate.memory();
    if known && fits {
        memory.failed.remove(&who);
        if let Some(fingerprint) = fingerprint {
            memory.remember(fingerprint);
        }
        return Ok(Caller { name: who.0 });
    }
    memory.count_failure(who);
    Err(ApiError::new(StatusCode::UNAUTHORIZED, "IAM10004", "the user name or the password is wrong"))
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
            assert!(!memory.is_locked(&who));
            memory.count_failure(who.clone());
        }
        assert!(memory.is_locked(&who));
        assert!(!memory.is_locked(&(who.0.clone(), IpAddr::V4(Ipv4Addr::UNSPECIFIED))));
    }

    #[test]
    fn tables_are_bounded() {
        let mut memory = Memory::default();
        for number in 0..MAX_ENTRIES + 10 {
            memory.count_failure((number.to_string(), IpAddr::V4(Ipv4Addr::LOCALHOST)));
            memory.remember(number.to_le_bytes().to_vec());
        }
        assert_eq!((memory.failed.len(), memory.passed.len()), (MAX_ENTRIES, MAX_ENTRIES));
    }

    #[test]
    fn the_hash_of_nobody_can_be_checked_and_fits_nothing() {
        assert!(argon2::password_hash::phc::PasswordHash::new(NOBODY).is_ok());
        assert!(!users::verify(NOBODY, &"".into()));
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
