//! Which keys sign bytes, of which format: those whose path ends in a purpose, and they do nothing else.
//!
//! A signature over a hash could be one over a message of another protocol, and the reverse. So the two have different
//! keys, and a key with a purpose signs only what is understood to be of its format: the domains never mix.

use std::fmt;

use base::{KeyPath, PublicKey};
use thiserror::Error;

/// Bytes of what is signed as it is. An SSHSIG has some hundred, a login less than ten thousand.
pub const SIGNED_BYTES_MAX: usize = 16 * 1024;
/// What a purpose begins with, and no other segment of a key path that is used.
const MARK: char = '@';

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Signatures of git and of files in OpenSSH's format, and logins.
    Ssh,
    /// Certificates; ES256, see `docs/format.md`.
    X509,
    /// JSON web tokens; ES256.
    Jwt,
}

impl Purpose {
    pub const ALL: [Self; 3] = [Self::Ssh, Self::X509, Self::Jwt];

    /// As the last segment of a path.
    #[must_use]
    pub const fn segment(self) -> &'static str {
        match self {
            Self::Ssh => "@ssh",
            Self::X509 => "@x509",
            Self::Jwt => "@jwt",
        }
    }

    /// None for a path without one.
    pub fn of(path: &KeyPath) -> Result<Option<Self>, PurposeError> {
        let Some((last, above)) = path.segments().split_last() else { return Ok(None) };
        if let Some(purpose) = above.iter().find(|segment| segment.as_str().starts_with(MARK)) {
            return Err(PurposeError::Below(purpose.as_str().to_owned()));
        }
        match Self::ALL.into_iter().find(|purpose| purpose.segment() == last.as_str()) {
            None if last.as_str().starts_with(MARK) => Err(PurposeError::Unknown(last.as_str().to_owned())),
            found => Ok(found),
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.segment())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PurposeError {
    #[error("{0:?} is no purpose that this build knows; a segment that begins with `@` is always one")]
    Unknown(String),
    #[error("nothing is derived below the purpose {0:?}: it ends a path")]
    Below(String),
    #[error("the purpose `{0}` is reserved: this build makes no keys for it")]
    Reserved(Purpose),
    #[error("a key for `{0}` signs bytes of that format alone, no hashes, and does not encrypt or decrypt")]
    Bytes(Purpose),
    #[error("this key path ends in no purpose, so its key signs hashes alone; one for ssh ends in `/@ssh`")]
    Hashes,
    #[error("at most {SIGNED_BYTES_MAX} bytes are signed as they are, not {0}")]
    TooLong(usize),
    #[error("not what a key for `{0}` signs: {1}")]
    Format(Purpose, ssh::FormatError),
}

/// Whether the path's key signs hashes, encrypts and decrypts.
pub(crate) fn for_hashes(path: &KeyPath) -> Result<(), PurposeError> {
    match Purpose::of(path)? {
        None => Ok(()),
        Some(purpose) => Err(PurposeError::Bytes(purpose)),
    }
}

/// Whether the path has a key at all that this build can make.
pub(crate) fn known(path: &KeyPath) -> Result<Option<Purpose>, PurposeError> {
    match Purpose::of(path)? {
        Some(reserved @ (Purpose::X509 | Purpose::Jwt)) => Err(PurposeError::Reserved(reserved)),
        found => Ok(found),
    }
}

/// Whether the path's key, which is `key`, signs these bytes.
pub(crate) fn for_bytes(path: &KeyPath, key: &PublicKey, message: &[u8]) -> Result<(), PurposeError> {
    let purpose = known(path)?.ok_or(PurposeError::Hashes)?;
    if message.len() > SIGNED_BYTES_MAX {
        return Err(PurposeError::TooLong(message.len()));
    }
    ssh::signed(message, key).map(drop).map_err(|error| PurposeError::Format(purpose, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: PublicKey = PublicKey([7; 32]);

    fn path(text: &str) -> KeyPath {
        KeyPath::parse(text).unwrap()
    }

    /// As `ssh-keygen -Y sign -n git` makes it, with `filler` bytes too many.
    fn sshsig(filler: usize) -> Vec<u8> {
        let mut bytes = b"SSHSIG".to_vec();
        for field in [&b"git"[..], b"", b"sha512", &vec![1; 64 + filler]] {
            bytes.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
            bytes.extend(field);
        }
        bytes
    }

    #[test]
    fn a_path_signs_hashes_or_bytes_and_never_both() {
        let ssh = Some(Purpose::Ssh);
        for (text, purpose) in [
            ("/orbital/users/alice", Ok(None)),
            ("/orbital/users/alice/@ssh", Ok(ssh)),
            ("/@ssh", Ok(ssh)),
            ("/a/@x509", Ok(Some(Purpose::X509))),
            ("/a/@jwt", Ok(Some(Purpose::Jwt))),
            ("/a/ssh", Ok(None)),
            ("/a/a@ssh", Ok(None)),
            ("/a/@SSH", Err(PurposeError::Unknown("@SSH".to_owned()))),
            ("/a/@", Err(PurposeError::Unknown("@".to_owned()))),
            ("/a/@ssh/b", Err(PurposeError::Below("@ssh".to_owned()))),
            ("/@later/@ssh", Err(PurposeError::Below("@later".to_owned()))),
        ] {
            assert_eq!(Purpose::of(&path(text)), purpose, "{text}");
            let (hashes, bytes) = (for_hashes(&path(text)), for_bytes(&path(text), &KEY, &sshsig(0)));
            assert_eq!(hashes.is_ok(), purpose == Ok(None), "{text}");
            assert_eq!(bytes.is_ok(), purpose == Ok(ssh), "{text}");
        }
        assert_eq!(for_hashes(&path("/a/@ssh")), Err(PurposeError::Bytes(Purpose::Ssh)));
        assert_eq!(for_bytes(&path("/a"), &KEY, &sshsig(0)), Err(PurposeError::Hashes));
        for purpose in [Purpose::X509, Purpose::Jwt] {
            let reserved = path("/a").child(purpose.segment()).unwrap();
            assert_eq!(for_bytes(&reserved, &KEY, &sshsig(0)), Err(PurposeError::Reserved(purpose)));
            assert_eq!(known(&reserved), Err(PurposeError::Reserved(purpose)));
            assert!(for_hashes(&reserved).is_err());
        }
    }

    #[test]
    fn length_is_looked_at_before_the_format() {
        let overhead = sshsig(0).len();
        let most = for_bytes(&path("/@ssh"), &KEY, &sshsig(SIGNED_BYTES_MAX - overhead));
        assert!(matches!(most, Err(PurposeError::Format(..))), "{most:?}");
        let more = for_bytes(&path("/@ssh"), &KEY, &sshsig(SIGNED_BYTES_MAX - overhead + 1));
        assert_eq!(more, Err(PurposeError::TooLong(SIGNED_BYTES_MAX + 1)));
    }

    proptest! {
        /// Above all no hash: 32 bytes are never a message of a format.
        #[test]
        fn no_hash_is_signed_as_bytes(hash in any::<[u8; 32]>()) {
            prop_assert!(for_bytes(&path("/@ssh"), &KEY, &hash).is_err());
        }
    }
}
