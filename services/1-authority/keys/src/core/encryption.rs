//! Encryption to a key path: an ephemeral X25519 key, HKDF-SHA256, XChaCha20-Poly1305 (KEY-31, KEY open point 6).
//!
//! `docs/format.md` describes the bytes. Who knows the path's exchange key can encrypt to it without a node; who decrypts
//! needs the node, a decision, and leaves a record.

use base::{KeyPath, PublicKey};
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce, aead::AeadInOut};
use hkdf::Hkdf;
use minicbor::{Decode, Decoder, Encode, Encoder};
use sha2::Sha256;
use thiserror::Error;
use x25519_dalek::{PublicKey as ExchangeKey, SharedSecret, StaticSecret};
use zeroize::Zeroizing;

/// Bytes of what is encrypted in one piece; larger things are encrypted with a key of their own, and that key here.
pub const PLAINTEXT_BYTES_MAX: usize = 64 * 1024;
/// Version, ephemeral key, nonce, tag.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;
pub const CIPHERTEXT_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX + OVERHEAD_BYTES;
/// Random bytes that one encryption uses up.
pub(crate) const ENTROPY_BYTES: usize = KEY_BYTES + NONCE_BYTES;

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + KEY_BYTES + NONCE_BYTES;
/// One more step below the key of a path gives its exchange key.
const EXCHANGE_INFO: &[u8] = b"orbital-x25519-v1";
const CIPHER_INFO: &[u8] = b"bailiwick-encryption-v1";

/// What was encrypted, or is to be. Wiped when dropped; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Plain(Zeroizing<Vec<u8>>);

impl Plain {
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<C> Encode<C> for Plain {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.bytes(&self.0)?.ok()
    }
}

impl<C> Decode<'_, C> for Plain {
    fn decode(decoder: &mut Decoder<'_>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Ok(Self::new(decoder.bytes()?.to_vec()))
    }
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plain({} bytes)", self.0.len())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncryptionError {
    #[error("at most {PLAINTEXT_BYTES_MAX} bytes are encrypted in one piece, not {0}")]
    TooLong(usize),
    #[error("{OVERHEAD_BYTES} to {CIPHERTEXT_BYTES_MAX} bytes can be decrypted, not {0}")]
    Length(usize),
    #[error("this is encrypted in format {0}, this build reads format {VERSION}; use a newer one")]
    Version(u8),
    #[error("it does not open: encrypted to another key path, or damaged")]
    Refused,
}

/// The exchange key of a path; wiped when dropped.
pub(crate) struct Exchange(StaticSecret);

impl Exchange {
    /// From the 32 bytes that are the path's signing key.
    pub(crate) fn derive(key: &[u8; KEY_BYTES]) -> Self {
        let mut secret = Zeroizing::new([0; KEY_BYTES]);
        expand(&Hkdf::new(Some(b""), key), EXCHANGE_INFO, &mut secret);
        Self(StaticSecret::from(*secret))
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        PublicKey(ExchangeKey::from(&self.0).to_bytes())
    }

    /// `entropy` is fresh from the kernel's random source and used for nothing else.
    pub(crate) fn encrypt(
        &self,
        path: &KeyPath,
        plain: &[u8],
        entropy: &[u8; ENTROPY_BYTES],
    ) -> Result<Vec<u8>, EncryptionError> {
        encrypt_to(&self.public_key(), path, plain, entropy)
    }

    pub(crate) fn decrypt(&self, path: &KeyPath, sealed: &[u8]) -> Result<Plain, EncryptionError> {
        let length = EncryptionError::Length(sealed.len());
        if sealed.len() > CIPHERTEXT_BYTES_MAX {
            return Err(length);
        }
        let (header, body) = sealed.split_at_checked(HEADER_BYTES).ok_or(length)?;
        let (body, tag) = body.split_last_chunk::<TAG_BYTES>().ok_or(length)?;
        let (version, rest) = header.split_first().ok_or(length)?;
        let (ephemeral, nonce) = rest.split_first_chunk::<KEY_BYTES>().ok_or(length)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| length)?;
        if *version != VERSION {
            return Err(EncryptionError::Version(*version));
        }
        let shared = self.0.diffie_hellman(&ExchangeKey::from(*ephemeral));
        let cipher = cipher(&shared, ephemeral, &self.public_key())?;
        let mut plain = Zeroizing::new(body.to_vec());
        let associated = associated(header, path);
        let opened = cipher.decrypt_inout_detached(
            &XNonce::from(nonce),
            &associated,
            plain.as_mut_slice().into(),
            &Tag::from(*tag),
        );
        opened.map(|()| Plain(plain)).map_err(|_| EncryptionError::Refused)
    }
}

/// Needs no secret but what `entropy` makes.
fn encrypt_to(
    recipient: &PublicKey,
    path: &KeyPath,
    plain: &[u8],
    entropy: &[u8; ENTROPY_BYTES],
) -> Result<Vec<u8>, EncryptionError> {
    if plain.len() > PLAINTEXT_BYTES_MAX {
        return Err(EncryptionError::TooLong(plain.len()));
    }
    let (secret, nonce) = entropy.split_first_chunk::<KEY_BYTES>().ok_or(EncryptionError::Refused)?;
    let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| EncryptionError::Refused)?;
    let ephemeral = StaticSecret::from(*secret);
    let public = ExchangeKey::from(&ephemeral).to_bytes();
    let cipher = cipher(&ephemeral.diffie_hellman(&ExchangeKey::from(recipient.0)), &public, recipient)?;
    let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD_BYTES);
    sealed.push(VERSION);
    sealed.extend(public);
    sealed.extend(nonce);
    let associated = associated(&sealed, path);
    let mut body = Zeroizing::new(plain.to_vec());
    let tag = cipher
        .encrypt_inout_detached(&XNonce::from(nonce), &associated, body.as_mut_slice().into())
        .map_err(|_| EncryptionError::Refused)?;
    sealed.extend_from_slice(&body);
    sealed.extend(tag);
    Ok(sealed)
}

/// Both public keys are in the salt, so that the key belongs to this exchange and no other.
fn cipher(
    shared: &SharedSecret,
    ephemeral: &[u8; KEY_BYTES],
    recipient: &PublicKey,
) -> Result<XChaCha20Poly1305, EncryptionError> {
    // A point of small order gives a secret that everybody knows.
    if !shared.was_contributory() {
        return Err(EncryptionError::Refused);
    }
    let salt = [&ephemeral[..], &recipient.0[..]].concat();
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    expand(&Hkdf::new(Some(&salt), shared.as_bytes()), CIPHER_INFO, &mut key);
    Ok(XChaCha20Poly1305::new(&(*key).into()))
}

fn expand(hkdf: &Hkdf<Sha256>, info: &[u8], out: &mut [u8; KEY_BYTES]) {
    let fits = hkdf.expand(info, out).is_ok();
    // 32 bytes are one block of output; HKDF refuses only more than 255.
    debug_assert!(fits);
}

fn associated(header: &[u8], path: &KeyPath) -> Vec<u8> {
    [header, path.to_string().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: [u8; 32] = [7; 32];
    const ENTROPY: [u8; ENTROPY_BYTES] = [9; ENTROPY_BYTES];

    fn path(text: &str) -> KeyPath {
        KeyPath::parse(text).unwrap()
    }

    fn sealed(plain: &[u8]) -> Vec<u8> {
        Exchange::derive(&KEY).encrypt(&path("/a/b"), plain, &ENTROPY).unwrap()
    }

    #[test]
    fn what_was_encrypted_opens_under_its_key_and_path_alone() {
        let mine = Exchange::derive(&KEY);
        let bytes = sealed(b"secret");
        assert_eq!(bytes.len(), b"secret".len() + OVERHEAD_BYTES);
        assert!(!bytes.windows(6).any(|part| part == b"secret"));
        assert_eq!(mine.decrypt(&path("/a/b"), &bytes).unwrap().as_bytes(), b"secret");
        assert_eq!(mine.decrypt(&path("/a"), &bytes), Err(EncryptionError::Refused));
        assert_eq!(Exchange::derive(&[8; 32]).decrypt(&path("/a/b"), &bytes), Err(EncryptionError::Refused));
        let other = mine.encrypt(&path("/a/b"), b"secret", &[3; ENTROPY_BYTES]).unwrap();
        assert_ne!(other[1..], bytes[1..], "nothing repeats with other entropy");
        // Anybody can encrypt to the public key.
        let theirs = encrypt_to(&mine.public_key(), &path("/a/b"), b"hello", &[5; ENTROPY_BYTES]).unwrap();
        assert_eq!(mine.decrypt(&path("/a/b"), &theirs).unwrap().as_bytes(), b"hello");
    }

    #[test]
    fn every_changed_byte_and_every_length_is_refused() {
        let mine = Exchange::derive(&KEY);
        let good = sealed(b"0123456789");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let expected = if at == 0 { EncryptionError::Version(0) } else { EncryptionError::Refused };
            // The top bit of the ephemeral key is not part of it, but of what is authenticated.
            assert_eq!(mine.decrypt(&path("/a/b"), &bad), Err(expected), "byte {at}");
            assert!(mine.decrypt(&path("/a/b"), &good[..at]).is_err(), "cut at {at}");
        }
        let short = &good[..OVERHEAD_BYTES - 1];
        assert_eq!(mine.decrypt(&path("/a/b"), short), Err(EncryptionError::Length(OVERHEAD_BYTES - 1)));
        let long = vec![VERSION; CIPHERTEXT_BYTES_MAX + 1];
        assert_eq!(mine.decrypt(&path("/a/b"), &long), Err(EncryptionError::Length(long.len())));
        let full = vec![1; PLAINTEXT_BYTES_MAX];
        assert_eq!(sealed(&full).len(), CIPHERTEXT_BYTES_MAX);
        assert_eq!(mine.decrypt(&path("/a/b"), &sealed(&full)), Ok(Plain::new(full)));
        let more = vec![1; PLAINTEXT_BYTES_MAX + 1];
        let refused = mine.encrypt(&path("/a/b"), &more, &ENTROPY);
        assert_eq!(refused, Err(EncryptionError::TooLong(PLAINTEXT_BYTES_MAX + 1)));
        assert_eq!(mine.decrypt(&path("/a/b"), &sealed(b"")), Ok(Plain::new(Vec::new())));
    }

    #[test]
    fn a_point_of_small_order_is_refused() {
        let mut bytes = sealed(b"x");
        bytes[1..33].fill(0);
        assert_eq!(Exchange::derive(&KEY).decrypt(&path("/a/b"), &bytes), Err(EncryptionError::Refused));
        let to_all = encrypt_to(&PublicKey([0; 32]), &path("/a"), b"x", &ENTROPY);
        assert_eq!(to_all, Err(EncryptionError::Refused));
    }

    /// covers: KEY-31
    #[test]
    fn the_vector_of_the_format_holds() {
        let alice = path("/orbital/users/alice/signing");
        let seed: [u8; 32] = std::array::from_fn(|n| n as u8);
        let mine = crate::core::derive::DerivedKey::derive(&seed, &alice, 0).exchange();
        let entropy: [u8; ENTROPY_BYTES] = std::array::from_fn(|n| n as u8);
        let sealed = mine.encrypt(&alice, b"attack at dawn", &entropy).unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let lines = format!("exchange-key: {}\nciphertext: {}\n", hex(&mine.public_key().0), hex(&sealed));
        let format = include_str!("../../../../../docs/format.md");
        let block = format.split("```encrypted\n").nth(1).and_then(|rest| rest.split("```").next());
        assert_eq!(block, Some(&lines[..]));
    }

    #[test]
    fn what_is_plain_is_not_printed() {
        assert_eq!(format!("{:?}", Plain::new(b"secret".to_vec())), "Plain(6 bytes)");
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Exchange::derive(&KEY).decrypt(&path("/a"), &bytes).is_err());
        }
    }
}
