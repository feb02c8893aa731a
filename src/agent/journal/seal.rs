//! Secrets in the journal: AES-256-GCM under a key of this host, bound to the operation they belong to.

use super::OpenError;
use crate::agent::{operation::Key, step::Secrets};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom as _, SystemRandom},
};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};
use zeroize::Zeroizing;

const KEY_LEN: usize = 32;

/// The secrets of a record cannot be read: the key is another one, or the record was damaged.
#[derive(Debug, thiserror::Error)]
#[error("the secrets cannot be unsealed")]
pub(super) struct Unsealable;

pub(super) struct Sealer {
    key: LessSafeKey,
    random: SystemRandom,
}

impl Sealer {
    /// Reads the key, or makes one for the owner's eyes only.
    pub(super) fn load_or_create(path: &Path) -> Result<Self, OpenError> {
        let file_error = |source| OpenError::File { path: path.into(), source };
        let random = SystemRandom::new();
        let bytes = match fs::read(path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bytes = Zeroizing::new(vec![0; KEY_LEN]);
                random.fill(&mut bytes).map_err(|_| file_error(io::Error::other("no random numbers")))?;
                create(path, &bytes).map_err(file_error)?;
                bytes
            }
            Err(error) => return Err(file_error(error)),
        };
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| OpenError::Key(path.into()))?;
        Ok(Self { key: LessSafeKey::new(key), random })
    }

    /// None when there is nothing to seal.
    pub(super) fn seal(&self, key: &Key, secrets: &Secrets) -> Result<Option<Vec<u8>>, Unsealable> {
        let plain: BTreeMap<&str, &str> = secrets.iter().collect();
        if plain.is_empty() {
            return Ok(None);
        }
        let mut body = Zeroizing::new(serde_json::to_vec(&plain).map_err(|_| Unsealable)?);
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| Unsealable)?;
        let aad = Aad::from(key.run_id());
        // Encrypts in place: the buffer holds no plain text afterwards.
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, &mut body)
            .map_err(|_| Unsealable)?;
        Ok(Some([&nonce, body.as_slice(), tag.as_ref()].concat()))
    }

    pub(super) fn unseal(&self, key: &Key, sealed: &[u8]) -> Result<Secrets, Unsealable> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(Unsealable)?;
        let mut body = Zeroizing::new(body.to_vec());
        let plain = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(key.run_id()), &mut body)
            .map_err(|_| Unsealable)?;
        let secrets: BTreeMap<String, String> = serde_json::from_slice(plain).map_err(|_| Unsealable)?;
        Ok(secrets.into_iter().map(|(name, value)| (name, Zeroizing::new(value))).collect())
    }
}

/// Writes the key so that a crash leaves either no key or the whole one.
fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(directory) = path.parent() {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}
