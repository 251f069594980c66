//! Which keys sign bytes, of which format: those whose path ends in a purpose, and they do nothing else.
//!
//! A signature over a hash could be one over a message of another protocol, and the reverse. So the two have different
//! keys, and a key with a purpose signs only what is understood to be of its format: the domains never mix.

use std::fmt;

use base::KeyPath;
use svid::{Certificate, Token, TrustDomain};
use thiserror::Error;

use super::VerifyingKey;

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
    #[error(
        "the segment above `{purpose}` names the trust domain that its key is the authority of, as in `/orbital/services/identity/node-a/{purpose}`: {why}"
    )]
    TrustDomain { purpose: Purpose, why: String },
    #[error("a key for `{0}` is of another kind")]
    NoKey(Purpose),
    #[error("a key for `{0}` signs bytes of that format alone, no hashes, and does not encrypt or decrypt")]
    Bytes(Purpose),
    #[error("this key path ends in no purpose, so its key signs hashes alone; one for ssh ends in `/@ssh`")]
    Hashes,
    #[error("at most {SIGNED_BYTES_MAX} bytes are signed as they are, not {0}")]
    TooLong(usize),
    #[error("not what a key for `{0}` signs: {1}")]
    Format(Purpose, String),
}

/// Whether the path's key signs hashes, encrypts and decrypts.
pub(crate) fn for_hashes(path: &KeyPath) -> Result<(), PurposeError> {
    match Purpose::of(path)? {
        None => Ok(()),
        Some(purpose) => Err(PurposeError::Bytes(purpose)),
    }
}

/// The trust domain that a key is the authority of: the segment above its purpose. So the path says what the key may
/// vouch for, and nobody has to be believed about it.
fn trust_domain(path: &KeyPath, purpose: Purpose) -> Result<TrustDomain, PurposeError> {
    let above = path.segments().iter().rev().nth(1);
    let named = above.map_or_else(
        || Err("there is none".to_owned()),
        |segment| TrustDomain::parse(segment.as_str()).map_err(|error| error.to_string()),
    );
    named.map_err(|why| PurposeError::TrustDomain { purpose, why })
}

/// What signs at a path, as its purpose says.
pub(crate) enum Signer {
    /// No purpose, or `@ssh`.
    Ed25519,
    Es256,
}

/// Which kind of key the path has, if this build can make one.
pub(crate) fn signer(path: &KeyPath) -> Result<(Option<Purpose>, Signer), PurposeError> {
    let purpose = Purpose::of(path)?;
    match purpose {
        Some(es256 @ (Purpose::X509 | Purpose::Jwt)) => {
            trust_domain(path, es256)?;
            Ok((purpose, Signer::Es256))
        }
        None | Some(Purpose::Ssh) => Ok((purpose, Signer::Ed25519)),
    }
}

/// The same where purposes are switched off, for `prove` alone: by the last segment and nothing else.
pub(crate) fn signer_unchecked(path: &KeyPath) -> Signer {
    match Purpose::of(path) {
        Ok(Some(Purpose::X509 | Purpose::Jwt)) => Signer::Es256,
        _ => Signer::Ed25519,
    }
}

/// Whether the path's key, which is `key`, signs these bytes.
pub(crate) fn for_bytes(path: &KeyPath, key: &VerifyingKey, message: &[u8]) -> Result<(), PurposeError> {
    let purpose = Purpose::of(path)?.ok_or(PurposeError::Hashes)?;
    if message.len() > SIGNED_BYTES_MAX {
        return Err(PurposeError::TooLong(message.len()));
    }
    let read = match (purpose, key) {
        (Purpose::Ssh, VerifyingKey::Ed25519(key)) => {
            ssh::signed(message, key).map(drop).map_err(|error| error.to_string())
        }
        (Purpose::X509, VerifyingKey::P256(key)) => {
            let domain = trust_domain(path, purpose)?;
            Certificate::read(message, &domain, key).map(drop).map_err(|error| error.to_string())
        }
        (Purpose::Jwt, VerifyingKey::P256(key)) => {
            let domain = trust_domain(path, purpose)?;
            Token::read(message, &domain, key).map(drop).map_err(|error| error.to_string())
        }
        (Purpose::Ssh, VerifyingKey::P256(_)) | (Purpose::X509 | Purpose::Jwt, VerifyingKey::Ed25519(_)) => {
            return Err(PurposeError::NoKey(purpose));
        }
    };
    read.map_err(|why| PurposeError::Format(purpose, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::derive::DerivedKey;
    use base::PublicKey;
    use proptest::prelude::*;

    const KEY: VerifyingKey = VerifyingKey::Ed25519(PublicKey([7; 32]));

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
    }

    fn es256(path: &KeyPath) -> VerifyingKey {
        VerifyingKey::P256(DerivedKey::derive(&[1; 32], path, 0).es256().unwrap().public_key().unwrap())
    }

    /// A token and a certificate for a workload of this trust domain, as the keys of these paths are to sign them.
    fn formats(x509: &KeyPath, jwt: &KeyPath, domain: &str) -> [Vec<u8>; 2] {
        let (VerifyingKey::P256(authority), VerifyingKey::P256(issuer)) = (es256(x509), es256(jwt)) else {
            panic!()
        };
        let id = TrustDomain::parse(domain).unwrap().member(&["services", "web"]).unwrap();
        let certificate = Certificate {
            serial: svid::serial([9; svid::SERIAL_BYTES]),
            subject: svid::Subject::Workload(id.clone()),
            key: issuer,
            not_before_s: 0,
            not_after_s: 3600,
        };
        let token = Token { subject: id, audience: vec!["a".to_owned()], expires_at_s: 300, issued_at_s: 0 };
        [certificate.to_sign(&authority).unwrap(), token.to_sign(&issuer).unwrap().into_bytes()]
    }

    #[test]
    fn a_key_for_certificates_or_tokens_is_the_authority_of_the_segment_above() {
        let (x509, jwt) = (path("/a/node-a/@x509"), path("/a/node-a/@jwt"));
        let [certificate, token] = formats(&x509, &jwt, "node-a");
        assert_eq!(for_bytes(&x509, &es256(&x509), &certificate), Ok(()));
        assert_eq!(for_bytes(&jwt, &es256(&jwt), &token), Ok(()));
        let [of_other, token_of_other] = formats(&x509, &jwt, "node-b");
        for (path, message) in [
            (&x509, &token),
            (&jwt, &certificate),
            (&x509, &of_other),
            (&jwt, &token_of_other),
            (&x509, &sshsig(0)),
            (&jwt, &vec![7; 32]),
        ] {
            let refused = for_bytes(path, &es256(path), message);
            assert!(matches!(refused, Err(PurposeError::Format(..))), "{path}: {refused:?}");
        }
        let ssh = path("/a/node-a/@ssh");
        assert!(matches!(for_bytes(&ssh, &KEY, &token), Err(PurposeError::Format(..))));
        assert_eq!(for_bytes(&x509, &KEY, &certificate), Err(PurposeError::NoKey(Purpose::X509)));
        for none in ["/@x509", "/a/Node A/@jwt"] {
            let refused = for_bytes(&path(none), &es256(&path(none)), &token);
            assert!(matches!(refused, Err(PurposeError::TrustDomain { .. })), "{none}: {refused:?}");
            assert!(matches!(signer(&path(none)), Err(PurposeError::TrustDomain { .. })));
        }
        for purpose in [&x509, &jwt] {
            assert!(matches!(for_hashes(purpose), Err(PurposeError::Bytes(_))));
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
