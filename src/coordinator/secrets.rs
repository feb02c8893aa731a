//! Secrets at rest: sealed with AES-256-GCM under a key that only the coordinator's user can read.

use crate::files;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use std::{fs, io, path::Path};
use zeroize::Zeroizing;

/// What can go wrong with sealed secrets.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the key file of the sealed secrets cannot be read or made")]
    KeyFile(#[source] io::Error),
    #[error("the key file of the sealed secrets does not hold 32 bytes")]
    KeyLength,
    #[error("the system returned no random bytes")]
    Random,
    #[error("a sealed secret cannot be opened: it was sealed with another key, for another place, or is damaged")]
    Unseal,
}

/// Seals and opens secrets. `place` binds a sealed text to its row, so that it cannot be moved to another.
pub struct Vault {
    key: LessSafeKey,
    fingerprint_key: hmac::Key,
    random: SystemRandom,
}

impl Vault {
    /// Reads the key, or makes it on first use.
    pub fn load_or_create(path: &Path) -> Result<Self, SecretError> {
        let random = SystemRandom::new();
        let bytes = match fs::read(path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bytes = Zeroizing::new(vec![0; AES_256_GCM.key_len()]);
                random.fill(&mut bytes).map_err(|_| SecretError::Random)?;
                files::replace(path, &bytes, 0o600).map_err(SecretError::KeyFile)?;
                bytes
            }
            Err(error) => return Err(SecretError::KeyFile(error)),
        };
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| SecretError::KeyLength)?;
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, b"oblet").extract(&bytes);
        let fingerprint_key = derived.expand(&[b"fingerprint"], hmac::HMAC_SHA256);
        let fingerprint_key = fingerprint_key.map_err(|_| SecretError::KeyLength)?.into();
        Ok(Self { key: LessSafeKey::new(key), fingerprint_key, random })
    }

    /// Removes a key that was being made when the power failed: one that is too short has sealed nothing yet. Only for
    /// a coordinator that has no store, or a key that was damaged later would be gone.
    pub fn discard_unfinished(path: &Path) -> Result<(), SecretError> {
        match fs::metadata(path) {
            Ok(file) if file.len() < AES_256_GCM.key_len() as u64 => {
                fs::remove_file(path).map_err(SecretError::KeyFile)
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(SecretError::KeyFile(error)),
        }
    }

    /// Tells texts apart that may hold secrets, which cannot be guessed from it without the key. Hexadecimal digits.
    pub fn fingerprint(&self, parts: &[&[u8]]) -> String {
        let mut context = hmac::Context::with_key(&self.fingerprint_key);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn seal(&self, place: &str, secret: &str) -> Result<String, SecretError> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| SecretError::Random)?;
        let mut sealed = secret.as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut sealed)
            .map_err(|_| SecretError::Unseal)?;
        Ok(BASE64_STANDARD.encode([nonce.as_slice(), &sealed].concat()))
    }

    pub fn open(&self, place: &str, sealed: &str) -> Result<Zeroizing<String>, SecretError> {
        let mut bytes = Zeroizing::new(BASE64_STANDARD.decode(sealed).map_err(|_| SecretError::Unseal)?);
        let (nonce, body) = bytes.split_at_mut_checked(NONCE_LEN).ok_or(SecretError::Unseal)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SecretError::Unseal)?;
        let plain = self.key.open_in_place(nonce, Aad::from(place), body).map_err(|_| SecretError::Unseal)?;
        Ok(Zeroizing::new(std::str::from_utf8(plain).map_err(|_| SecretError::Unseal)?.to_owned()))
    }

    /// A password that follows OCP's rule ODP21106: 8 to 32 characters with two of each kind.
    pub fn generate_password(&self) -> Result<Zeroizing<String>, SecretError> {
        const KINDS: [&[u8]; 4] = [b"abcdefghijkmnpqrstuvwxyz", b"ABCDEFGHJKLMNPQRSTUVWXYZ", b"23456789", b"._+@#"];
        let mut bytes = Zeroizing::new([0_u8; 24]);
        self.random.fill(bytes.as_mut_slice()).map_err(|_| SecretError::Random)?;
        let letter = |(kind, byte): (&&[u8], &u8)| kind.get(usize::from(*byte) % kind.len()).map(|c| char::from(*c));
        Ok(Zeroizing::new(KINDS.iter().cycle().zip(bytes.iter()).filter_map(letter).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_in_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let sealed = Vault::load_or_create(&path).unwrap().seal("cluster/1", "s3cret").unwrap();
        let vault = Vault::load_or_create(&path).unwrap();
        assert_eq!(vault.open("cluster/1", &sealed).unwrap().as_str(), "s3cret");
        assert!(vault.open("cluster/2", &sealed).is_err());
        assert!(vault.open("cluster/1", "AAAA").is_err());
        assert!(!sealed.contains("s3cret"));
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_was_not_written_to_its_end_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        Vault::discard_unfinished(&path).unwrap();
        fs::write(&path, [7; 31]).unwrap();
        assert!(matches!(Vault::load_or_create(&path), Err(SecretError::KeyLength)));
        Vault::discard_unfinished(&path).unwrap();
        let sealed = Vault::load_or_create(&path).unwrap().seal("cluster/1", "s3cret").unwrap();
        Vault::discard_unfinished(&path).unwrap();
        assert!(Vault::load_or_create(&path).unwrap().open("cluster/1", &sealed).is_ok(), "a whole key stays");
    }

    #[test]
    fn generated_passwords_follow_the_rule() {
        let directory = tempfile::tempdir().unwrap();
        let password = Vault::load_or_create(&directory.path().join("key")).unwrap().generate_password().unwrap();
        assert_eq!(password.len(), 24);
        assert!(password.chars().filter(char::is_ascii_digit).count() >= 2);
        assert!(password.chars().filter(|c| "._+@#$%".contains(*c)).count() >= 2);
    }
}
