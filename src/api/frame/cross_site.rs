//! Refuses changes that a foreign page makes a browser ask for.
//!
//! A browser that was once given a password sends it along with every request to this coordinator, whichever page asks.
//! A form or a script of another site needs no body and no consent for a POST, so what it asks for looks like the
//! user's own. Browsers say where a request comes from; programs that are none say nothing, and are let through.

use super::error::{ApiError, code};
use axum::{
    extract::Request,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

/// <https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header>
const SEC_FETCH_SITE: &str = "sec-fetch-site";

pub(in crate::api) async fn refuse(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if reads || is_own(request.headers(), request.uri()) {
        return next.run(request).await;
    }
    ApiError::new(StatusCode::FORBIDDEN, code::INVALID_REQUEST, "the request comes from a page of another site")
        .advise("nothing was changed; send the request from a program, or from a page of this coordinator")
        .into_response()
}

/// Browsers before 2023 name the origin only, and not whether it is this one.
pub(in crate::api) fn is_own(headers: &HeaderMap, uri: &Uri) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    // HTTP/2 has the host in the address instead.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(|authority| authority.as_str()));
    let named = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    named.zip(host).is_some_and(|(named, host)| named.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(headers: &[(&'static str, &'static str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        is_own(&headers, &Uri::from_static("https://coordinator:8443/"))
    }

    #[test]
    fn a_change_is_taken_from_programs_and_from_the_own_pages() {
        assert!(own(&[]) && own(&[("sec-fetch-site", "same-origin")]) && own(&[("sec-fetch-site", "none")]));
        assert!(own(&[("host", "c:8443"), ("origin", "https://C:8443")]));
        assert!(own(&[("origin", "https://coordinator:8443")]), "HTTP/2");
        let proxied = [("sec-fetch-site", "same-origin"), ("origin", "https://oblet.example"), ("host", "c:8443")];
        assert!(own(&proxied), "a proxy in between may name another host");
    }

    #[test]
    fn a_change_is_not_taken_from_pages_of_others() {
        for site in ["cross-site", "same-site", "SAME-ORIGIN", ""] {
            assert!(!own(&[("sec-fetch-site", site), ("host", "c"), ("origin", "https://c")]), "{site}");
        }
        for origin in ["null", "https://evil.example", "https://c:8443.evil.example", "c:8443", ""] {
            assert!(!own(&[("host", "c:8443"), ("origin", origin)]), "{origin}");
        }
    }
}
