//! Addresses of agents.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Where an agent listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AgentAddress(pub SocketAddr);

impl AgentAddress {
    pub fn new(ip: IpAddr, port: u16) -> Self {
        Self(SocketAddr::new(ip, port))
    }
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
