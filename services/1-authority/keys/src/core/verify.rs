//! What needs no secret: verification, and which algorithms there are.

use base::{PublicKey, Signature};
use ed25519_dalek::VerifyingKey;

use super::KeyError;

/// True if `signature` is `key`'s over `message`; a well-formed but wrong one is false, a malformed key an error (KEY-05).
///
/// Strict: keys and signature points of small order are wrong, for such a key "signs" more than one message.
pub fn verify(key: &PublicKey, message: &[u8], signature: &Signature) -> Result<bool, KeyError> {
    let parsed = VerifyingKey::from_bytes(&key.0).map_err(|_| {
        KeyError::CryptoFailure(format!("{key} is not a point of the curve, so not an ed25519 key"))
    })?;
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    Ok(parsed.verify_strict(message, &signature).is_ok())
}

/// What is done with the keys of a path, as `KeyInfo` tells it (KEY-08, KEY-31).
pub const ALGORITHMS: [&str; 4] = ["Ed25519", "X25519", "XChaCha20-Poly1305", "HKDF-SHA256"];
/// The same of a path with a purpose.
pub const BYTES_ALGORITHMS: [&str; 2] = ["Ed25519", "HKDF-SHA256"];
/// The same of `@x509` and `@jwt`.
pub const ES256_ALGORITHMS: [&str; 2] = ["ES256", "HKDF-SHA256"];

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    /// covers: KEY-05
    #[test]
    fn wrong_is_false_and_malformed_is_an_error() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let public = PublicKey(key.verifying_key().to_bytes());
        let good = Signature(key.sign(b"message").to_bytes());
        assert_eq!(verify(&public, b"message", &good), Ok(true));
        assert_eq!(verify(&public, b"massage", &good), Ok(false));
        for byte in 0..64 {
            let mut bad = good;
            bad.0[byte] ^= 1;
            assert_eq!(verify(&public, b"message", &bad), Ok(false), "byte {byte}");
        }
        // y = 2 has no x on the curve.
        let mut off_curve = [0; 32];
        off_curve[0] = 2;
        assert!(matches!(verify(&PublicKey(off_curve), b"", &good), Err(KeyError::CryptoFailure(_))));
    }

    #[test]
    fn a_key_of_small_order_verifies_nothing() {
        // The neutral element: R = neutral, s = 0 satisfies the cofactored equation for every message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut forged = [0; 64];
        forged[0] = 1;
        assert_eq!(verify(&PublicKey(neutral), b"anything", &Signature(forged)), Ok(false));
    }
}
