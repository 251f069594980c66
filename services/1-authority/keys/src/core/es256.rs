//! ES256 keys: one more step below the key of a path gives a secret on P-256. `docs/format.md` describes it.

use base::Signature;
use hkdf::Hkdf;
use p256::ecdsa::{Signature as EcSignature, SigningKey, signature::Signer};
use sha2::Sha256;
use svid::P256Key;
use zeroize::Zeroizing;

const P256_INFO: &[u8] = b"orbital-p256-v1";

/// On its way to one operation; zeroed when dropped (KEY-22).
pub(crate) struct Es256Key(SigningKey);

impl Es256Key {
    /// Takes the first candidate that is a secret: all but one in 2^32 are.
    pub(crate) fn derive(path_key: &[u8]) -> Option<Self> {
        Self::first((0..=u8::MAX).map(|counter| candidate(path_key, counter)))
    }

    /// `None` after 256 candidates of which none is a secret, which has a chance of 2^-8192.
    fn first(candidates: impl Iterator<Item = Zeroizing<[u8; 32]>>) -> Option<Self> {
        // Zero and what is not below the group's order are refused here.
        candidates.filter_map(|bytes| SigningKey::from_slice(&bytes[..]).ok()).map(Self).next()
    }

    pub(crate) fn public_key(&self) -> Option<P256Key> {
        P256Key::from_bytes(self.0.verifying_key().to_sec1_point(false).as_bytes())
    }

    /// Over SHA-256 of the bytes, with the `k` of RFC 6979; whoever calls has looked at what they are.
    pub(crate) fn sign_bytes(&self, message: &[u8]) -> Signature {
        let signature: EcSignature = self.0.sign(message);
        Signature(signature.to_bytes().into())
    }
}

fn candidate(path_key: &[u8], counter: u8) -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    let info = [P256_INFO, &[counter]];
    let fits = Hkdf::<Sha256>::new(None, path_key).expand_multi_info(&info, &mut bytes[..]).is_ok();
    // 32 bytes are one block of output; HKDF refuses only more than 255.
    debug_assert!(fits);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::derive::DerivedKey;
    use base::KeyPath;

    fn vector(name: &str) -> &'static str {
        let format = include_str!("../../../../../docs/format.md");
        let block = format.split_once("```svid\n").unwrap().1;
        block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap()
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits = text.as_bytes().chunks(2);
        digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn key(purpose: &str) -> Es256Key {
        let seed: Vec<u8> = (0..32).collect();
        let path = KeyPath::parse(&format!("/orbital/services/identity/node-a/@{purpose}")).unwrap();
        DerivedKey::derive(&seed, &path, 0).es256().unwrap()
    }

    #[test]
    fn keys_and_signatures_are_those_of_the_fixed_vectors() {
        for purpose in ["x509", "jwt"] {
            let key = key(purpose);
            assert_eq!(key.0.to_bytes()[..], hex(vector(&format!("{purpose}-secret"))), "{purpose}");
            let public = key.public_key().unwrap();
            assert_eq!(public.as_bytes()[..], hex(vector(&format!("{purpose}-key"))), "{purpose}");
        }
        for name in ["authority", "svid"] {
            let signature = key("x509").sign_bytes(&hex(vector(&format!("{name}-tbs"))));
            assert_eq!(signature.0[..], hex(vector(&format!("{name}-signature"))), "{name}");
        }
        let (signed, signature) = vector("token").rsplit_once('.').unwrap();
        let made = key("jwt").sign_bytes(signed.as_bytes());
        let token = svid::Token::verify(
            &format!("{signed}.{signature}"),
            &svid::TrustDomain::parse("node-a").unwrap(),
            &key("jwt").public_key().unwrap(),
            "db",
            1_700_000_000,
        );
        assert!(token.is_ok());
        assert!(key("jwt").public_key().unwrap().verify(signed.as_bytes(), &made.0));
        assert_eq!(svid::join(signed, &made.0), vector("token"));
    }

    #[test]
    fn what_is_no_secret_is_passed_over() {
        // The group's order; one less is the last secret.
        let order = hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
        let order: [u8; 32] = order.try_into().unwrap();
        let mut last = order;
        last[31] -= 1;
        let none = [[0; 32], order, [0xff; 32]];
        let first = |bytes: &[[u8; 32]]| {
            let found = Es256Key::first(bytes.iter().map(|bytes| Zeroizing::new(*bytes)));
            found.map(|key| <[u8; 32]>::from(key.0.to_bytes()))
        };
        assert_eq!(first(&none), None);
        assert_eq!(first(&[none[0], none[1], none[2], last, [1; 32]]), Some(last));
        // The counter is what makes candidates differ.
        assert_ne!(candidate(&[1; 32], 0), candidate(&[1; 32], 1));
    }
}
