//! Public keys on P-256, as certificates, tokens and people take them, and a private one as a workload gets it.

use std::fmt;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use p256::ecdsa::{Signature, VerifyingKey, signature::Verifier};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::der::{
    BIT_STRING, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, Reader, SEQUENCE, context, element, sequence,
};

/// An uncompressed point (SEC 1): 4, x, y.
pub const P256_KEY_BYTES: usize = 65;
/// Of a signature: r and s, 32 bytes each.
pub const SIGNATURE_BYTES: usize = 64;
const SECRET_BYTES: usize = 32;
/// Bytes of a key id in a certificate (RFC 7093, method 1).
const KEY_ID_BYTES: usize = 20;
const LINE_CHARS: usize = 64;

/// id-ecPublicKey on secp256r1.
const EC_PUBLIC_KEY: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const SECP256R1: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// A point of the curve, other than the neutral one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct P256Key([u8; P256_KEY_BYTES]);

impl P256Key {
    /// None for what is no point of the curve.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let key: [u8; P256_KEY_BYTES] = bytes.try_into().ok()?;
        VerifyingKey::from_sec1_bytes(&key).ok().map(|_| Self(key))
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; P256_KEY_BYTES] {
        &self.0
    }

    /// Whether this is the key's ES256 signature over the message. What is malformed is none.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        let key = VerifyingKey::from_sec1_bytes(&self.0);
        let signature = Signature::from_slice(signature);
        matches!((key, signature), (Ok(key), Ok(signature)) if key.verify(message, &signature).is_ok())
    }

    /// SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        sequence(&[&algorithm(), &bit_string(&self.0)])
    }

    pub(crate) fn of_spki(content: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(content);
        reader.take(SEQUENCE)?;
        Self::from_bytes(reader.take(BIT_STRING)?.strip_prefix(&[0])?)
    }

    #[must_use]
    pub fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &self.spki())
    }

    /// How certificates name it.
    pub(crate) fn key_id(&self) -> [u8; KEY_ID_BYTES] {
        let mut id = [0; KEY_ID_BYTES];
        id.iter_mut().zip(Sha256::digest(self.0)).for_each(|(byte, digest)| *byte = digest);
        id
    }

    fn coordinates(&self) -> (String, String) {
        let (_, point) = self.0.split_at(1);
        let (x, y) = point.split_at(point.len() / 2);
        (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
    }

    /// How tokens name it: the thumbprint of RFC 7638.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        let (x, y) = self.coordinates();
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        URL_SAFE_NO_PAD.encode(Sha256::digest(members))
    }

    /// A JSON web key whose further members are these, each after a comma.
    pub(crate) fn jwk_with(&self, more: &str) -> String {
        let (x, y) = self.coordinates();
        format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"{more}}}"#)
    }

    /// For whoever verifies tokens.
    #[must_use]
    pub fn to_jwk(&self) -> String {
        self.jwk_with(&format!(r#","kid":"{}","alg":"ES256""#, self.thumbprint()))
    }
}

impl fmt::Display for P256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for P256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P256Key({self})")
    }
}

fn algorithm() -> Vec<u8> {
    sequence(&[&element(OBJECT_IDENTIFIER, &EC_PUBLIC_KEY), &element(OBJECT_IDENTIFIER, &SECP256R1)])
}

/// Of whole bytes.
pub(crate) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], bytes].concat())
}

/// A private key with its public one as PKCS #8 (RFC 5958, RFC 5915).
#[must_use]
pub fn pkcs8(secret: &[u8; SECRET_BYTES], key: &P256Key) -> Zeroizing<Vec<u8>> {
    let number = Zeroizing::new(element(OCTET_STRING, secret));
    let public = element(context(1), &bit_string(&key.0));
    let private = Zeroizing::new(sequence(&[&element(INTEGER, &[1]), &number, &public]));
    let wrapped = Zeroizing::new(element(OCTET_STRING, &private));
    Zeroizing::new(sequence(&[&element(INTEGER, &[0]), &algorithm(), &wrapped]))
}

/// RFC 7468; ends with a line end.
#[must_use]
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(LINE_CHARS));
        out.push_str(line);
        out.push('\n');
        rest = behind;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use p256::ecdsa::{SigningKey, signature::Signer};

    pub(crate) fn signer(byte: u8) -> SigningKey {
        SigningKey::from_slice(&[byte; SECRET_BYTES]).unwrap()
    }

    pub(crate) fn public(signer: &SigningKey) -> P256Key {
        P256Key::from_bytes(signer.verifying_key().to_sec1_point(false).as_bytes()).unwrap()
    }

    // Made with Python's `cryptography`: the private key 0x0101…01 and its forms.
    const PEM: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEb/A7lJJBzh2t1DUZ5pYOCoW0Gmmg\nXDKBA6orzhWUyhY8T3U6Vb8B3FP2wLDH7ueLQMb/fSWpbiKCuYnO9xwUSg==\n-----END PUBLIC KEY-----\n";
    const THUMBPRINT: &str = "Nrqg3-M_Xwtx-1tbtc1J7Xul2DyeC0bUSy9u_5NSG6g";
    const PKCS8: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQGhRANCAARv8DuUkkHOHa3UNRnmlg4KhbQaaaBcMoEDqivOFZTKFjxPdTpVvwHcU/bAsMfu54tAxv99JaluIoK5ic73HBRK";

    #[test]
    fn a_key_is_written_as_other_software_writes_it() {
        let key = public(&signer(1));
        assert_eq!(key.to_pem(), PEM);
        assert_eq!(key.thumbprint(), THUMBPRINT);
        assert_eq!(*pkcs8(&[1; 32], &key), STANDARD.decode(PKCS8).unwrap());
        let spki = key.spki();
        let mut reader = Reader::new(&spki);
        assert_eq!(P256Key::of_spki(reader.take(SEQUENCE).unwrap()), Some(key));
        assert!(key.to_jwk().contains(&format!(r#""kid":"{THUMBPRINT}""#)));
    }

    #[test]
    fn only_points_of_the_curve_are_keys() {
        let good = *public(&signer(1)).as_bytes();
        assert!(P256Key::from_bytes(&good[..64]).is_none());
        assert!(P256Key::from_bytes(&[&good[..], &[0]].concat()).is_none());
        let mut off = good;
        off[64] ^= 1;
        assert!(P256Key::from_bytes(&off).is_none());
        let mut compressed = good;
        compressed[0] = 2;
        assert!(P256Key::from_bytes(&compressed).is_none());
        assert!(P256Key::from_bytes(&[0; P256_KEY_BYTES]).is_none());
    }

    #[test]
    fn a_signature_is_of_one_message_and_key() {
        let signature: Signature = signer(1).sign(b"message");
        let mut bytes: [u8; SIGNATURE_BYTES] = signature.to_bytes().into();
        assert!(public(&signer(1)).verify(b"message", &bytes));
        assert!(!public(&signer(1)).verify(b"massage", &bytes));
        assert!(!public(&signer(2)).verify(b"message", &bytes));
        bytes[63] ^= 1;
        assert!(!public(&signer(1)).verify(b"message", &bytes));
        assert!(!public(&signer(1)).verify(b"message", &[0; SIGNATURE_BYTES]));
    }
}
