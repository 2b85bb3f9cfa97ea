//! Sealing of secrets with AES-256-GCM under the master key.
//!
//! A sealed value names the key that sealed it and is bound to the record that
//! it belongs to (associated data), so a ciphertext moved to another record
//! does not open. Nonces are random: 96 bits are plenty for the number of
//! secrets that an installation ever seals.

use std::fmt;

use aes_gcm::{
    Aes256Gcm, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

/// A secret that is sealed, as it stands in events and read models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Id of the key that sealed it.
    pub key_id: String,
    /// 96-bit nonce, base64.
    pub nonce: String,
    /// Ciphertext and tag, base64.
    pub ciphertext: String,
}

/// The installation's master key: 32 bytes that never leave memory in clear.
#[derive(Clone)]
pub struct MasterKey {
    bytes: Zeroizing<[u8; 32]>,
    id: String,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The master key is not 32 bytes of base64.
    #[error("the master key must be 32 bytes in base64")]
    BadKey,
    /// Another key sealed it.
    #[error("sealed with key {sealed_with}, but the master key here is {have}")]
    OtherKey {
        /// Id of the key that sealed the value.
        sealed_with: String,
        /// Id of the key at hand.
        have: String,
    },
    /// The ciphertext is damaged, or belongs to another record.
    #[error("the sealed value does not open: damaged, or moved from another record")]
    DoesNotOpen,
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system")]
    NoRandomness,
}

impl MasterKey {
    /// Reads 32 bytes of base64; blanks around it are ignored.
    ///
    /// # Errors
    /// [`SealError::BadKey`].
    pub fn from_base64(text: &str) -> Result<Self, SealError> {
        let mut decoded = STANDARD.decode(text.trim()).or(Err(SealError::BadKey))?;
        let bytes = <[u8; 32]>::try_from(decoded.as_slice()).or(Err(SealError::BadKey));
        decoded.zeroize();
        bytes.map(Self::from_bytes)
    }

    /// Draws a new key.
    ///
    /// # Errors
    /// [`SealError::NoRandomness`].
    pub fn draw() -> Result<Self, SealError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).or(Err(SealError::NoRandomness))?;
        Ok(Self::from_bytes(bytes))
    }

    /// The key as base64, to be written to a file that only its owner reads.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.bytes.as_slice())
    }

    /// A short public name of the key: a hash, so it tells nothing about it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Seals `plain` for the record that `belongs_to` names.
    ///
    /// # Errors
    /// [`SealError::NoRandomness`].
    pub fn seal(&self, plain: &[u8], belongs_to: &str) -> Result<Sealed, SealError> {
        let mut nonce = [0; 12];
        getrandom::fill(&mut nonce).or(Err(SealError::NoRandomness))?;
        let payload = Payload {
            msg: plain,
            aad: belongs_to.as_bytes(),
        };
        let ciphertext = self
            .cipher()
            .encrypt(&Nonce::from(nonce), payload)
            .or(Err(SealError::DoesNotOpen))?;
        Ok(Sealed {
            key_id: self.id.clone(),
            nonce: STANDARD.encode(nonce),
            ciphertext: STANDARD.encode(ciphertext),
        })
    }

    /// Opens what was sealed for the record that `belongs_to` names.
    ///
    /// # Errors
    /// [`SealError::OtherKey`], [`SealError::DoesNotOpen`].
    pub fn open(&self, sealed: &Sealed, belongs_to: &str) -> Result<Vec<u8>, SealError> {
        if sealed.key_id != self.id {
            return Err(SealError::OtherKey {
                sealed_with: sealed.key_id.clone(),
                have: self.id.clone(),
            });
        }
        let decode = |text: &str| STANDARD.decode(text).or(Err(SealError::DoesNotOpen));
        let nonce = <[u8; 12]>::try_from(decode(&sealed.nonce)?.as_slice())
            .or(Err(SealError::DoesNotOpen))?;
        let ciphertext = decode(&sealed.ciphertext)?;
        let payload = Payload {
            msg: &ciphertext,
            aad: belongs_to.as_bytes(),
        };
        self.cipher()
            .decrypt(&Nonce::from(nonce), payload)
            .or(Err(SealError::DoesNotOpen))
    }

    fn from_bytes(bytes: [u8; 32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"nexus master key id\0");
        hash.update(bytes);
        let digest = hash.finalize();
        let id = digest.iter().take(8).fold(String::new(), |mut id, byte| {
            use fmt::Write;
            // Writing to a String cannot fail.
            write!(id, "{byte:02x}").unwrap_or_default();
            id
        });
        Self {
            bytes: Zeroizing::new(bytes),
            id,
        }
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&*self.bytes).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_only_for_its_record_and_key() {
        let key = MasterKey::draw().unwrap();
        let sealed = key.seal(b"sk-secret", "provider:1").unwrap();
        assert_eq!(key.open(&sealed, "provider:1").unwrap(), b"sk-secret");
        assert!(matches!(
            key.open(&sealed, "provider:2"),
            Err(SealError::DoesNotOpen)
        ));
        let other = MasterKey::draw().unwrap();
        assert!(matches!(
            other.open(&sealed, "provider:1"),
            Err(SealError::OtherKey { .. })
        ));
    }

    #[test]
    fn a_master_key_reads_back_and_debug_hides_it() {
        let key = MasterKey::draw().unwrap();
        let again = MasterKey::from_base64(&format!(" {}\n", key.to_base64())).unwrap();
        assert_eq!(again.id(), key.id());
        assert!(!format!("{key:?}").contains(&key.to_base64()));
        assert!(MasterKey::from_base64("c2hvcnQ=").is_err());
    }
}
