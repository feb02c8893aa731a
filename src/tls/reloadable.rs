//! TLS configurations that are exchanged while connections go on.

use super::{Identity, TlsError};
use rustls::{ClientConfig, ServerConfig};
use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

/// One side of mutual TLS.
pub trait Side: Sized {
    fn of(identity: &Identity) -> Result<Self, TlsError>;
}

impl Side for ServerConfig {
    fn of(identity: &Identity) -> Result<Self, TlsError> {
        identity.server()
    }
}

impl Side for ClientConfig {
    fn of(identity: &Identity) -> Result<Self, TlsError> {
        identity.client()
    }
}

/// What a program shows and trusts on connections to come; clones share it. Established connections keep what they
/// were made with.
pub struct Reloadable<T>(Arc<RwLock<Arc<T>>>);

/// Of an agent that is called.
pub type AgentTls = Reloadable<ServerConfig>;
/// Of a coordinator that calls.
pub type CallerTls = Reloadable<ClientConfig>;

impl<T: Side> Reloadable<T> {
    pub fn new(identity: &Identity) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(RwLock::new(Arc::new(T::of(identity)?)))))
    }

    /// Takes `identity` for connections to come; on an error everything stays as it is.
    pub fn replace(&self, identity: &Identity) -> Result<(), TlsError> {
        let made = Arc::new(T::of(identity)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = made;
        Ok(())
    }

    /// For one connection; not to be kept.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> Clone for Reloadable<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Reloadable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloadable").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{CertificateAuthority, Role, install_crypto_provider};

    #[test]
    fn a_key_that_does_not_fit_leaves_what_was_there() {
        install_crypto_provider();
        let directory = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::load_or_create(directory.path()).unwrap();
        let identity = || authority.issue(Role::Agent, "agent", &[]).unwrap().identity(&authority);
        let (first, second) = (identity(), identity());
        let tls = AgentTls::new(&first).unwrap();
        let before = tls.current();
        let mixed = Identity { key_pem: second.key_pem.clone(), ..first };
        assert!(matches!(tls.replace(&mixed), Err(TlsError::Unfit(_))));
        assert!(Arc::ptr_eq(&before, &tls.current()));
        tls.replace(&second).unwrap();
        assert!(!Arc::ptr_eq(&before, &tls.current()));
    }
}
