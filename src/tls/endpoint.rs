//! Under what a server is reached.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// An IP address, or a DNS name in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Endpoint {
    Ip(IpAddr),
    Name(String),
}

/// RFC 1035: a name has at most 253 characters, each label at most 63.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is neither an IP address nor a DNS name")]
pub struct BadEndpoint(String);

impl Endpoint {
    /// As it stands in a URL.
    pub fn with_port(&self, port: u16) -> String {
        match self {
            Self::Ip(ip) => SocketAddr::new(*ip, port).to_string(),
            Self::Name(name) => format!("{name}:{port}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // What looks like an address is a mistyped one.
        let is_number = |label: &str| label.chars().all(|c| c.is_ascii_digit());
        let fits = text.len() <= 253 && text.split('.').all(label) && !text.rsplit('.').next().is_some_and(is_number);
        if fits { Ok(Self::Name(text.to_ascii_lowercase())) } else { Err(BadEndpoint(text.to_owned())) }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = BadEndpoint;

    fn try_from(text: String) -> Result<Self, BadEndpoint> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl From<IpAddr> for Endpoint {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_told_apart_and_others_refused() {
        for (text, url) in [
            ("192.0.2.1", "192.0.2.1:8443"),
            ("2001:db8::1", "[2001:db8::1]:8443"),
            ("Coordinator.example", "coordinator.example:8443"),
            ("db-1", "db-1:8443"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().with_port(8443), url);
        }
        let long = format!("{}.example", "a".repeat(64));
        for text in ["", "192.0.2.300", "a..b", "-a.example", "a_b", "a b", "https://a", "a:8443", long.as_str()] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
