//! Identities for tests.

use super::{CertificateAuthority, Identity, Role};
use std::{net::Ipv4Addr, path::Path};

/// An identity on loopback, from the authority of `directory`.
pub(crate) fn issue(directory: &Path, role: Role) -> Identity {
    let authority = CertificateAuthority::load_or_create(directory).unwrap();
    authority.issue(role, "lab", &[Ipv4Addr::LOCALHOST.into()]).unwrap().identity(&authority)
}
