//! The token with which Prometheus asks for its targets, and which opens nothing else: the password of a user does not
//! belong into the configuration of a server that only reads.

use crate::{api::frame::error::ApiError, files};
use axum::http::{HeaderMap, Method, header};
use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use std::{fs, io, path::Path};
use zeroize::Zeroizing;

/// The one route that it opens.
const ROUTE: &str = "/api/v2/prometheus/targets";
/// How the log names who comes with it.
pub(in crate::api) const NAME: &str = "(prometheus)";
const BYTES: usize = 32;

/// What is kept of the token to know it again.
pub struct ScrapeToken {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl ScrapeToken {
    /// Reads the token from `path`, or makes it there (mode 0600). Remove the file and start again to change it.
    pub fn load_or_create(path: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) if !text.trim().is_empty() => Zeroizing::new(text),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(_) | Err(_) => {
                let text = Zeroizing::new(random()? + "\n");
                files::replace(path, text.as_bytes(), 0o600)?;
                text
            }
        };
        Self::new(text.trim())
    }

    pub fn new(token: &str) -> io::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| no_random())?;
        Ok(Self { tag: hmac::sign(&key, token.as_bytes()), key })
    }

    /// Whether a request comes with the token for the route that it opens; an error if it comes with it, or with another
    /// one, for anything else. None if it comes with none.
    pub(in crate::api) fn admits(
        &self,
        method: &Method,
        route: &str,
        headers: &HeaderMap,
    ) -> Option<Result<(), ApiError>> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        // Takes the same time whatever is wrong with it.
        let fits = hmac::verify(&self.key, token.trim().as_bytes(), self.tag.as_ref()).is_ok();
        Some(if fits && route == ROUTE && [Method::GET, Method::HEAD].contains(method) {
            Ok(())
        } else {
            Err(ApiError::new(axum::http::StatusCode::UNAUTHORIZED, "IAM10004", "the token does not open this")
                .advise(format!("send HTTP Basic credentials; the token is for GET {ROUTE} only")))
        })
    }
}

fn no_random() -> io::Error {
    io::Error::other("the system returned no random bytes")
}

fn random() -> io::Result<String> {
    let mut bytes = Zeroizing::new([0; BYTES]);
    SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_| no_random())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn ask(token: &ScrapeToken, method: Method, route: &str, value: &str) -> Option<bool> {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
        token.admits(&method, route, &headers).map(|admitted| admitted.is_ok())
    }

    #[test]
    fn a_token_is_made_once_and_opens_the_targets_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        ScrapeToken::load_or_create(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let token = ScrapeToken::load_or_create(&path).unwrap();
        let value = format!("Bearer {}", text.trim());
        assert_eq!(value.len(), 7 + 2 * BYTES);
        assert_eq!(ask(&token, Method::GET, ROUTE, &value), Some(true));
        assert_eq!(ask(&token, Method::POST, ROUTE, &value), Some(false));
        assert_eq!(ask(&token, Method::GET, "/api/v2/compute/hosts", &value), Some(false));
        assert_eq!(ask(&token, Method::GET, ROUTE, "Bearer guess"), Some(false));
        assert_eq!(ask(&token, Method::GET, ROUTE, "Basic YTpi"), None, "users come with their passwords");
    }
}
