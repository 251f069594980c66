//! The signing key of a service that signs by itself: handed over by the supervisor in a pipe, read once (DESIGN 6).

use std::{fs::File, io::Read, os::fd::OwnedFd};

use base::PublicKey;
use ed25519_dalek::SigningKey;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::env::EnvError;

/// Bytes of the key in the pipe; nothing else stands there.
const KEY_BYTES: usize = ed25519_dalek::SECRET_KEY_LENGTH;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the signing key that was handed over belongs to {handed}, genesis pins {pinned}: nothing is signed with it; restore \
     the service's sealed key from a copy of this node"
)]
pub struct KeyNotPinned {
    pub handed: PublicKey,
    pub pinned: PublicKey,
}

/// A key that signs nothing before it was compared with what genesis pins. Wiped when it is dropped.
#[derive(Debug)]
pub struct HandedKey(SigningKey);

impl HandedKey {
    #[must_use]
    pub const fn new(key: SigningKey) -> Self {
        Self(key)
    }

    /// Empties the pipe. The supervisor has closed its end, so this waits for nobody.
    pub(crate) fn read(pipe: OwnedFd) -> Result<Self, EnvError> {
        // One byte more than the key, so that something longer is noticed.
        let mut buffer = Zeroizing::new([0; KEY_BYTES + 1]);
        let mut pipe = File::from(pipe);
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match pipe.read(rest).map_err(EnvError::SigningKey)? {
                0 => break,
                read => filled = filled.saturating_add(read),
            }
        }
        match buffer.first_chunk::<KEY_BYTES>().filter(|_| filled == KEY_BYTES) {
            Some(secret) => Ok(Self(SigningKey::from_bytes(secret))),
            None => Err(EnvError::SigningKeyBytes(filled)),
        }
    }

    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// The key, if it is the one that genesis pins for this service.
    pub fn pinned_as(self, pinned: &PublicKey) -> Result<SigningKey, KeyNotPinned> {
        match self.public_key() {
            handed if handed == *pinned => Ok(self.0),
            handed => Err(KeyNotPinned { handed, pinned: *pinned }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn pipe(bytes: &[u8]) -> OwnedFd {
        let (read, write) = rustix::pipe::pipe().unwrap();
        File::from(write).write_all(bytes).unwrap();
        read
    }

    #[test]
    fn a_key_is_read_once_and_is_exactly_a_key() {
        let read = pipe(&[7; 32]);
        let again = read.try_clone().unwrap();
        let key = HandedKey::read(read).unwrap();
        assert_eq!(key.public_key().0, SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes());
        assert!(
            matches!(HandedKey::read(again), Err(EnvError::SigningKeyBytes(0))),
            "it was left in the pipe"
        );
        for bytes in [0, 31, 33] {
            let error = HandedKey::read(pipe(&vec![7; bytes])).unwrap_err();
            assert!(matches!(error, EnvError::SigningKeyBytes(found) if found == bytes), "{error}");
        }
        assert!(matches!(HandedKey::read(pipe(&[7; 99])), Err(EnvError::SigningKeyBytes(33))));
    }

    #[test]
    fn a_key_that_is_not_pinned_is_not_given_out() {
        let key = || HandedKey::new(SigningKey::from_bytes(&[7; 32]));
        let pinned = key().public_key();
        assert_eq!(key().pinned_as(&pinned).unwrap().to_bytes(), [7; 32]);
        let other = PublicKey([9; 32]);
        assert_eq!(key().pinned_as(&other).unwrap_err(), KeyNotPinned { handed: pinned, pinned: other });
        assert!(!format!("{:?}", key()).contains("7, 7, 7"), "the key is printed");
    }
}
