//! What crosses the boundary's socket: one CBOR value per `SOCK_SEQPACKET` message, one answer per question, in order.
//! No variant can carry a seed or a private key (KEY-18, KEY-20).

use base::{
    Hash, KeyPath, PublicKey, Signature,
    cbor::{self, CborError},
};
use minicbor::{Decode, Encode};
use thiserror::Error;

pub use seal::SecretKind;
use seal::{SEALED_BYTES, SealError};

use crate::core::{
    CIPHERTEXT_BYTES_MAX, EPOCH_HEADER_BYTES, EncryptionError, Plain, PurposeError, VerifyingKey,
};

/// Largest message in either direction: a path of 16 segments of 255 bytes, what is decrypted, and room for the framing.
pub const MESSAGE_BYTES_MAX: usize = 4608 + EPOCH_HEADER_BYTES + CIPHERTEXT_BYTES_MAX;

/// What the operator sends on the socket of their own: the place of the kind in `SecretKind::ALL`, then the secret.
pub const UNLOCK_BYTES_MAX: usize = 1 + seal::SECRET_BYTES_MAX + 2;
/// How long a secret is waited for after policy has allowed it: long enough to type a passphrase.
pub const UNLOCK_WINDOW: std::time::Duration = std::time::Duration::from_secs(120);
/// Wrong secrets within the window; each costs a stretching.
pub const UNLOCK_TRIES_MAX: u32 = 5;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    #[n(0)]
    Status,
    /// First boot: make a seed and seal it. `sealing` must be what the boundary was started with.
    #[n(1)]
    Create {
        #[n(0)]
        sealing: SecretKind,
    },
    /// Open these bytes with the secret that the boundary was started with.
    #[n(2)]
    Unseal {
        #[cbor(n(0), with = "minicbor::bytes")]
        sealed: Vec<u8>,
    },
    #[n(3)]
    PublicKey {
        #[n(0)]
        path: KeyPath,
        #[n(1)]
        epoch: u32,
    },
    #[n(4)]
    Sign {
        #[n(0)]
        path: KeyPath,
        #[n(1)]
        message: Hash,
        #[n(2)]
        epoch: u32,
    },
    #[n(5)]
    Encrypt {
        #[n(0)]
        path: KeyPath,
        #[n(1)]
        plain: Plain,
        #[n(2)]
        epoch: u32,
    },
    #[n(6)]
    Decrypt {
        #[n(0)]
        path: KeyPath,
        #[cbor(n(1), with = "minicbor::bytes")]
        sealed: Vec<u8>,
    },
    /// Only with the key of a purpose, and only what is of its format.
    #[n(7)]
    SignBytes {
        #[n(0)]
        path: KeyPath,
        #[cbor(n(1), with = "minicbor::bytes")]
        message: Vec<u8>,
        #[n(2)]
        epoch: u32,
    },
    /// Seal the open seed anew, by the next secret that the boundary was started with. The node is not up then.
    #[n(16)]
    Seal,
    /// Wipe the seed and whatever opens it. Only `Arm`, and then a secret on the operator's own socket, open it again.
    #[n(17)]
    Lock,
    /// Take a secret on the operator's own socket, for `UNLOCK_WINDOW` and `UNLOCK_TRIES_MAX` tries.
    #[n(18)]
    Arm,
    /// Write the seed as words to the descriptor that was handed over for them, which nobody else reads.
    #[n(19)]
    WriteWords,
    /// Read the seed as words from that descriptor.
    #[n(20)]
    ReadWords,
    /// A signing key that is sealed by the next secret, sealed by the seed.
    #[n(21)]
    Copy {
        #[n(0)]
        signer: u8,
        #[cbor(n(1), with = "minicbor::bytes")]
        sealed: Vec<u8>,
    },
    /// The other way.
    #[n(22)]
    Restore {
        #[n(0)]
        signer: u8,
        #[cbor(n(1), with = "minicbor::bytes")]
        sealed: Vec<u8>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Response {
    #[n(0)]
    Status {
        #[n(0)]
        state: BoundaryState,
        /// What it was started with; none once it is no longer held.
        #[n(1)]
        secret: Option<SecretKind>,
        /// The seed's pages are out of the kernel's own map too.
        #[n(2)]
        hidden_from_kernel: bool,
    },
    /// Of a new seed these bytes are the only copy: write them durably before anything is derived for good.
    #[n(1)]
    Created {
        #[cbor(n(0), with = "minicbor::bytes")]
        sealed: Vec<u8>,
    },
    #[n(2)]
    Unsealed,
    #[n(3)]
    PublicKey {
        #[n(0)]
        public_key: VerifyingKey,
        /// X25519; none where the path's purpose is another than to encrypt.
        #[n(1)]
        exchange_key: Option<PublicKey>,
    },
    #[n(4)]
    Signed {
        #[n(0)]
        signature: Signature,
        #[n(1)]
        public_key: VerifyingKey,
    },
    #[n(5)]
    Refused(#[n(0)] Refusal),
    #[n(6)]
    Encrypted {
        #[cbor(n(0), with = "minicbor::bytes")]
        sealed: Vec<u8>,
    },
    #[n(7)]
    Decrypted {
        #[n(0)]
        plain: Plain,
    },
    #[n(17)]
    Locked,
    #[n(18)]
    Armed,
    #[n(19)]
    WordsWritten,
    #[n(20)]
    WordsRead,
    /// A signing key under another seal, and its public half.
    #[n(21)]
    Resealed {
        #[cbor(n(0), with = "minicbor::bytes")]
        sealed: Vec<u8>,
        #[n(1)]
        public_key: PublicKey,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum BoundaryState {
    /// Started without a sealed seed: `Create` or `Unseal`.
    #[n(0)]
    Empty,
    /// The sealed seed did not open.
    #[n(1)]
    Locked {
        #[n(0)]
        why: String,
    },
    #[n(2)]
    Ready,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Error)]
pub enum Refusal {
    #[error("the message is malformed: {0}; the boundary ends the connection")]
    #[n(0)]
    Malformed(#[n(0)] String),
    #[error("the seed is locked; `bailiwick key unlock` opens it")]
    #[n(1)]
    Locked,
    #[error("no secret is taken now; `bailiwick key unlock` asks for leave first")]
    #[n(17)]
    NotArmed,
    #[error("what was sent is no secret")]
    #[n(18)]
    NoSecretSent,
    #[error("{0}")]
    #[n(19)]
    Words(#[n(0)] String),
    #[error("the boundary was started without a place for words")]
    #[n(20)]
    NoPlace,
    #[error("there is no signer {0}")]
    #[n(21)]
    NoSigner(#[n(0)] u8),
    #[error("the boundary has a seed already and replaces none")]
    #[n(2)]
    HasSeed,
    #[error("the boundary was started without a {0:?}")]
    #[n(3)]
    NoSecret(#[n(0)] SecretKind),
    #[error("the boundary was started without what the seed is to be sealed by")]
    #[n(16)]
    NoNextSecret,
    #[error("{0}")]
    #[n(4)]
    Seal(#[n(0)] String),
    #[error("the kernel gave no random bytes")]
    #[n(5)]
    NoEntropy,
    #[error("{0}")]
    #[n(6)]
    Encryption(#[n(0)] String),
    #[error("{0}")]
    #[n(7)]
    Purpose(#[n(0)] String),
}

impl From<PurposeError> for Refusal {
    fn from(error: PurposeError) -> Self {
        Self::Purpose(error.to_string())
    }
}

impl From<EncryptionError> for Refusal {
    fn from(error: EncryptionError) -> Self {
        Self::Encryption(error.to_string())
    }
}

impl From<SealError> for Refusal {
    fn from(error: SealError) -> Self {
        Self::Seal(error.to_string())
    }
}

impl Request {
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CborError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(CborError::Decode(format!("more than {MESSAGE_BYTES_MAX} bytes")));
        }
        match cbor::decode(bytes)? {
            Self::Unseal { sealed } if sealed.len() > SEALED_BYTES * 2 => {
                Err(CborError::Decode("too long for a sealed seed".to_owned()))
            }
            Self::Copy { sealed, .. } | Self::Restore { sealed, .. } if sealed.len() > SEALED_BYTES => {
                Err(CborError::Decode("too long for a sealed key".to_owned()))
            }
            request => Ok(request),
        }
    }
}

impl Response {
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CborError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(CborError::Decode(format!("more than {MESSAGE_BYTES_MAX} bytes")));
        }
        cbor::decode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::limits::{KEY_PATH_SEGMENT_BYTES_MAX, KEY_PATH_SEGMENTS_MAX};
    use proptest::prelude::*;

    #[test]
    fn the_longest_path_fits_and_more_than_a_message_does_not() {
        let longest = format!("/{}", "x".repeat(KEY_PATH_SEGMENT_BYTES_MAX)).repeat(KEY_PATH_SEGMENTS_MAX);
        let sign = Request::Sign {
            path: KeyPath::parse(&longest).unwrap(),
            message: Hash([1; 32]),
            epoch: u32::MAX,
        };
        assert_eq!(Request::from_bytes(&sign.to_bytes()), Ok(sign));
        let decrypt = Request::Decrypt {
            path: KeyPath::parse(&longest).unwrap(),
            sealed: vec![1; CIPHERTEXT_BYTES_MAX + EPOCH_HEADER_BYTES],
        };
        assert_eq!(Request::from_bytes(&decrypt.to_bytes()), Ok(decrypt));
        assert!(Request::from_bytes(&vec![0; MESSAGE_BYTES_MAX + 1]).is_err());
        let long = Request::Unseal { sealed: vec![0; SEALED_BYTES * 2] };
        assert_eq!(Request::from_bytes(&long.to_bytes()), Ok(long));
        assert!(
            Request::from_bytes(&Request::Unseal { sealed: vec![0; SEALED_BYTES * 2 + 1] }.to_bytes())
                .is_err()
        );
    }

    /// covers: KEY-20
    #[test]
    fn no_operation_asks_for_or_returns_private_material() {
        // Exhaustive on purpose: a new operation must be argued here.
        let asks = |request: &Request| match request {
            Request::Status
            | Request::Create { .. }
            | Request::Unseal { .. }
            | Request::Seal
            | Request::Lock
            | Request::Arm => "state",
            // Through a descriptor that whoever asks does not hold.
            Request::WriteWords | Request::ReadWords => "words, elsewhere",
            Request::Copy { .. } | Request::Restore { .. } => "a sealed key under another seal",
            Request::PublicKey { .. } => "public key",
            Request::Sign { .. } => "signature over a hash",
            Request::SignBytes { .. } => "signature over bytes of a format",
            Request::Encrypt { .. } => "encryption of the caller's bytes",
            Request::Decrypt { .. } => "what somebody encrypted to the path",
        };
        let returns = |response: &Response| match response {
            Response::Status { .. }
            | Response::Unsealed
            | Response::Locked
            | Response::Armed
            | Response::WordsWritten
            | Response::WordsRead
            | Response::Refused(_) => "facts",
            Response::Resealed { sealed: _, public_key: _ } => "a sealed key",
            Response::Created { sealed: _ } => "the seed, sealed",
            Response::PublicKey { public_key: _, exchange_key: _ } => "public keys",
            Response::Encrypted { sealed: _ } => "the caller's bytes, encrypted",
            Response::Decrypted { plain: _ } => "the caller's bytes",
            Response::Signed { signature: _, public_key: _ } => "signature",
        };
        assert_eq!(asks(&Request::Status), "state");
        assert_eq!(returns(&Response::Unsealed), "facts");
        // No other operation decodes: a ninth index is refused.
        assert!(Request::from_bytes(&[0x82, 8, 0x80]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_decode_to_what_encodes_to_them(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(request) = Request::from_bytes(&bytes) {
                prop_assert_eq!(request.to_bytes(), bytes);
            }
        }
    }
}
