//! The two key derivations of part 1 (KDFa, KDFe), parameter encryption, and the curve.

use aes::{
    Aes128,
    cipher::{BlockCipherEncrypt, KeyInit as _},
};
use hmac::{Hmac, Mac};
use p256::{
    PublicKey, Sec1Point,
    ecdh::EphemeralSecret,
    elliptic_curve::sec1::{FromSec1Point, ToSec1Point},
};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

pub(crate) const DIGEST_BYTES: usize = 32;
/// The key and the initialisation vector of AES-128 in CFB mode.
const BLOCK_BYTES: usize = 16;
/// Bytes of one coordinate on P-256.
const COORDINATE_BYTES: usize = 32;

pub(crate) type Secret = Zeroizing<[u8; DIGEST_BYTES]>;

/// A point that is on the curve.
pub(crate) struct Point {
    key: PublicKey,
    x: [u8; COORDINATE_BYTES],
}

impl Point {
    /// Coordinates come without leading zeros from some TPMs.
    pub(crate) fn of(x: &[u8], y: &[u8]) -> Option<Self> {
        let (x, y) = (padded(x)?, padded(y)?);
        let point = Sec1Point::from_affine_coordinates(&x.into(), &y.into(), false);
        let key = Option::from(PublicKey::from_sec1_point(&point))?;
        Some(Self { key, x })
    }
}

fn padded(bytes: &[u8]) -> Option<[u8; COORDINATE_BYTES]> {
    let mut out = [0; COORDINATE_BYTES];
    let at = COORDINATE_BYTES.checked_sub(bytes.len())?;
    out.get_mut(at..)?.copy_from_slice(bytes);
    Some(out)
}

/// A salt that only the holder of the private key of `to` learns, and the point that tells it.
pub(crate) fn salt(
    to: &Point,
    own: EphemeralSecret,
) -> Option<(Secret, [u8; COORDINATE_BYTES], [u8; COORDINATE_BYTES])> {
    let public = own.public_key().to_sec1_point(false);
    let x: [u8; COORDINATE_BYTES] = public.x()?.as_slice().try_into().ok()?;
    let y: [u8; COORDINATE_BYTES] = public.y()?.as_slice().try_into().ok()?;
    let shared = own.diffie_hellman(&to.key);
    // KDFe, one round: counter, shared secret, label with its zero, both parties.
    let mut hash = Sha256::new();
    hash.update(1_u32.to_be_bytes());
    hash.update(shared.raw_secret_bytes());
    hash.update(b"SECRET\0");
    hash.update(x);
    hash.update(to.x);
    Some((Zeroizing::new(hash.finalize().into()), x, y))
}

/// KDFa with SHA-256, one round: 256 bits, which is what sessions and their ciphers need.
pub(crate) fn derive(key: &[u8], label: &str, first: &[u8], second: &[u8]) -> Secret {
    mac(key, &[&1_u32.to_be_bytes(), label.as_bytes(), &[0], first, second, &256_u32.to_be_bytes()])
}

pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> Secret {
    // Any length of key is one.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Zeroizing::new([0; DIGEST_BYTES]) };
    parts.iter().for_each(|part| mac.update(part));
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// CFB in place; `secret` is the key and then the initialisation vector.
pub(crate) fn cipher(secret: &Secret, data: &mut [u8], decrypts: bool) {
    let (key, start) = secret.split_at(BLOCK_BYTES);
    let (Ok(key), Ok(start)) = (<[u8; BLOCK_BYTES]>::try_from(key), <[u8; BLOCK_BYTES]>::try_from(start))
    else {
        return;
    };
    let cipher = Aes128::new(&key.into());
    let mut feedback = start;
    for chunk in data.chunks_mut(BLOCK_BYTES) {
        let mut stream = feedback.into();
        cipher.encrypt_block(&mut stream);
        for ((byte, mask), next) in chunk.iter_mut().zip(stream.iter()).zip(feedback.iter_mut()) {
            let given = *byte;
            *byte ^= mask;
            *next = if decrypts { given } else { *byte };
        }
        stream.as_mut_slice().zeroize();
    }
}
