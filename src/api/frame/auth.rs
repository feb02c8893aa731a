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
use crate::{api::system::scrape_token, coordinator::store::user, doorkeeper::Standing};
use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret as _, SecretString};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

const COME_AGAIN: Duration = Duration::from_secs(2);
/// Checked for a user who does not exist, so that the time taken does not tell.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5bm8$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Who sent the request.
#[derive(Debug, Clone)]
pub(in crate::api) struct Caller {
    pub(in crate::api) name: String,
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
            // A stranger with many connections does not end the one over which someone follows a log.
            if let Some(standing) = request.extensions().get::<Standing>() {
                standing.keep();
            }
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
