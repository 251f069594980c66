use std::{fmt, str::FromStr};

use minicbor::{Decode, Decoder, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::{Hash, limits::NAME_BYTES_MAX};

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdError {
    #[error("{kind} is {bytes} bytes in hexadecimal, not {text:?}")]
    Hex { kind: &'static str, bytes: usize, text: String },
    #[error("a name has 1 to {NAME_BYTES_MAX} bytes of [A-Za-z0-9_.-], not {0:?}")]
    Name(String),
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; $bytes]);

        impl $name {
            pub const BYTES: usize = $bytes;

            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// From exactly as many bytes as the id has.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                from_hex(text).map(Self).ok_or_else(|| IdError::Hex {
                    kind: $kind,
                    bytes: $bytes,
                    text: text.chars().take(140).collect(),
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

byte_id!(
    /// BLAKE3 of the identity's public key (IDN-12, IDN-35).
    IdentityId, 32, "an identity id"
);
byte_id!(
    /// An Ed25519 public key.
    PublicKey, 32, "a public key"
);
byte_id!(
    /// An Ed25519 signature.
    Signature, 64, "a signature"
);
byte_id!(
    /// Random; only a look-up key, never a bearer secret (CAP-33).
    CapabilityId, 16, "a capability id"
);
byte_id!(
    /// Random.
    CredentialId, 16, "a credential id"
);
byte_id!(
    /// Random.
    TokenId, 16, "a token id"
);
byte_id!(
    /// Random; of a connection or a listening socket, in the log and among the live ones.
    ConnectionId, 16, "a connection id"
);
byte_id!(
    /// Idempotency key, unique per submitter: one key, one entry (AX-41).
    EntryKey, 16, "an idempotency key"
);
byte_id!(
    /// Of a job: hash of who submitted it and under which key, so that the same submission is the same job.
    JobId, 16, "a job id"
);
byte_id!(
    /// Makes two equal policy requests different.
    Nonce, 16, "a nonce"
);
byte_id!(
    /// W3C trace id; also the log's.
    TraceId, 16, "a trace id"
);

impl IdentityId {
    /// The id that belongs to a public key.
    #[must_use]
    pub fn of_key(key: &PublicKey) -> Self {
        Self(Hash::of(&key.0).0)
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
        )]
        #[cbor(transparent)]
        #[serde(transparent)]
        pub struct $name(#[n(0)] pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number_id!(
    /// Number of an entry; genesis is 0, no gaps (AX-14).
    Sequence, u64
);
number_id!(
    /// Assigned by `process_manager`, never used again (PRC-35).
    ProcessId, u64
);
number_id!(
    /// Assigned by the supervisor when a service is registered.
    ServiceId, u32
);

/// Names one committed entry (AX-05).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[cbor(array)]
pub struct AxiomRef {
    #[n(0)]
    pub sequence: Sequence,
    #[n(1)]
    pub hash: Hash,
}

impl fmt::Display for AxiomRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.sequence, self.hash)
    }
}

/// Readable and unique: `system-admin`, `default-deny`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Serialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct RuleId(#[n(0)] String);

impl RuleId {
    /// The reserved id that decides when no rule matches (POL-39).
    pub const DEFAULT_DENY: &'static str = "DEFAULT_DENY";

    pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
        let text = text.into();
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(legal) {
            return Err(IdError::Name(text.chars().take(80).collect()));
        }
        Ok(Self(text))
    }

    #[must_use]
    pub fn default_deny() -> Self {
        Self(Self::DEFAULT_DENY.to_owned())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuleId({})", self.0)
    }
}

impl FromStr for RuleId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl<'b, C> Decode<'b, C> for RuleId {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::new(d.str()?).map_err(minicbor::decode::Error::custom)
    }
}

impl<'de> Deserialize<'de> for RuleId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
