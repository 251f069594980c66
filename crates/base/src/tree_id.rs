use std::{fmt, str::FromStr};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{IdError, from_hex, to_hex};

const PREFIX: &str = "sha256:";

/// SHA-256 of what a container image is named by; written as images have it, `sha256:` and 64 digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct TreeId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

impl TreeId {
    pub const BYTES: usize = 32;

    /// From exactly as many bytes as the id has.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    #[must_use]
    pub fn to_hex(&self) -> String {
        to_hex(&self.0)
    }

    /// 64 digits, as digests have them.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }
}

impl fmt::Display for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.to_hex())
    }
}

impl fmt::Debug for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TreeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.strip_prefix(PREFIX).and_then(Self::from_hex).ok_or_else(|| IdError::Hex {
            kind: "the id of a container image, behind `sha256:`,",
            bytes: Self::BYTES,
            text: text.chars().take(140).collect(),
        })
    }
}

impl Serialize for TreeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TreeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_64_small_digits() {
        let hex = "0123456789abcdef".repeat(4);
        let id = TreeId::from_hex(&hex).unwrap();
        assert_eq!((id.to_hex(), id.to_string().parse()), (hex.clone(), Ok(id)));
        for wrong in [&hex[1..], &hex.to_uppercase(), &format!("{hex}0"), &"é".repeat(32)] {
            assert_eq!(TreeId::from_hex(wrong), None, "{wrong}");
            assert!(format!("sha256:{wrong}").parse::<TreeId>().is_err(), "{wrong}");
        }
        assert!(hex.parse::<TreeId>().is_err(), "without its prefix");
    }
}
