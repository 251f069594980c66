//! The public half of what signs at a path.

use base::PublicKey;
use minicbor::{Decode, Encode, decode, encode};
use svid::P256Key;

/// Which of the two kinds it is, the path's purpose says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyingKey {
    Ed25519(PublicKey),
    /// Of `@x509` and `@jwt`.
    P256(P256Key),
}

impl VerifyingKey {
    /// As contracts carry it: 32 bytes, or 65.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Ed25519(key) => &key.0,
            Self::P256(key) => key.as_bytes(),
        }
    }

    /// The reverse; none for what is of neither kind.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match <[u8; 32]>::try_from(bytes) {
            Ok(key) => Some(Self::Ed25519(PublicKey(key))),
            Err(_) => P256Key::from_bytes(bytes).map(Self::P256),
        }
    }
}

impl<C> Encode<C> for VerifyingKey {
    fn encode<W: encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        encoder.bytes(self.as_bytes())?.ok()
    }
}

impl<C> Decode<'_, C> for VerifyingKey {
    fn decode(decoder: &mut minicbor::Decoder<'_>, _: &mut C) -> Result<Self, decode::Error> {
        Self::from_bytes(decoder.bytes()?).ok_or_else(|| decode::Error::message("no public key"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_length_and_survives_its_bytes() {
        let point = svid_key();
        for key in [VerifyingKey::Ed25519(PublicKey([7; 32])), VerifyingKey::P256(point)] {
            assert_eq!(VerifyingKey::from_bytes(key.as_bytes()), Some(key));
            assert_eq!(base::cbor::decode(&base::cbor::encode(&key)), Ok(key));
        }
        let mut off = *point.as_bytes();
        off[64] ^= 1;
        for none in [&[7; 31][..], &[7; 33], &off, &[]] {
            assert_eq!(VerifyingKey::from_bytes(none), None);
        }
    }

    fn svid_key() -> P256Key {
        crate::core::derive::DerivedKey::derive(&[1; 32], &"/a/@jwt".parse().unwrap(), 0)
            .es256()
            .and_then(|key| key.public_key())
            .unwrap()
    }
}
