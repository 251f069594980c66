//! The seed's derivation: one HKDF-SHA256 per path segment, the last 32 bytes are the Ed25519 secret key (KEY-19, KEY-24, KEY-27).
//!
//! Reachable from the boundary only; nothing here crosses its socket (KEY-20).

use base::{Hash, KeyPath, PublicKey, Signature};
use ed25519_dalek::{Signer, SigningKey};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{encryption::Exchange, es256::Es256Key};

const MASTER_INFO: &[u8] = b"orbital-master-key-v1";
const EPOCH_INFO: &[u8] = b"bailiwick-key-epoch-v1";
const RECOVERY_INFO: &[u8] = b"bailiwick-recovery-v1";
const DERIVATION_INFO: &[u8] = b"orbital-key-derivation-v1";
/// Bytes of the root seed and of every key below it.
pub(crate) const SEED_BYTES: usize = 32;

type Secret = Zeroizing<[u8; SEED_BYTES]>;

fn hkdf_sha256(key: &[u8], salt: &[u8], info: &[u8], out: &mut Secret) {
    let fits = Hkdf::<Sha256>::new(Some(salt), key).expand(info, &mut out[..]).is_ok();
    // 32 bytes are one block of output; HKDF refuses only more than 255.
    debug_assert!(fits);
}

/// What opens the copies of the signing keys that recovery words bring back.
pub(crate) fn recovery_secret(seed: &[u8]) -> Zeroizing<[u8; SEED_BYTES]> {
    let mut secret = Secret::default();
    hkdf_sha256(seed, b"", RECOVERY_INFO, &mut secret);
    secret
}

/// Of a key that is not derived from the seed.
pub(crate) fn public_half(key: &[u8; SEED_BYTES]) -> PublicKey {
    PublicKey(SigningKey::from_bytes(key).verifying_key().to_bytes())
}

/// A private key on its way to one operation; zeroed when dropped (KEY-22).
pub(crate) struct DerivedKey(SigningKey);

impl DerivedKey {
    /// One step more for a later epoch: epoch 0 is the path's key as it always was.
    pub(crate) fn derive(seed: &[u8], path: &KeyPath, epoch: u32) -> Self {
        let mut current = Secret::default();
        let mut next = Secret::default();
        hkdf_sha256(seed, b"", MASTER_INFO, &mut current);
        for segment in path.segments() {
            hkdf_sha256(&current[..], segment.as_bytes(), DERIVATION_INFO, &mut next);
            std::mem::swap(&mut *current, &mut *next);
        }
        if epoch != 0 {
            hkdf_sha256(&current[..], &epoch.to_le_bytes(), EPOCH_INFO, &mut next);
            std::mem::swap(&mut *current, &mut *next);
        }
        Self(SigningKey::from_bytes(&current))
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// One step further, for encryption.
    pub(crate) fn exchange(&self) -> Exchange {
        Exchange::derive(self.0.as_bytes())
    }

    /// One step further, for ES256; see there for the chance that there is none.
    pub(crate) fn es256(&self) -> Option<Es256Key> {
        Es256Key::derive(self.0.as_bytes())
    }

    /// Ed25519 over the bytes; whoever calls has looked at what they are.
    pub(crate) fn sign_bytes(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }

    /// Ed25519 over the 32 bytes of the hash (KEY-21).
    pub(crate) fn sign(&self, message: &Hash) -> Signature {
        self.sign_bytes(message.as_bytes())
    }
}

/// Stack that an operation may dirty with key material; measured use is below 20 KiB in a debug build.
const STACK_WIPED_BYTES: usize = 64 * 1024;

/// Runs `operation`, then overwrites the stack that it used: spilled registers and moved values outlive their owners there.
pub(crate) fn with_clean_stack<T>(operation: impl FnOnce() -> T) -> T {
    let result = run_below(operation);
    wipe_below();
    result
}

#[inline(never)]
fn run_below<T>(operation: impl FnOnce() -> T) -> T {
    operation()
}

#[inline(never)]
fn wipe_below() {
    // Words, for each store is volatile: bytes would take eight times as long.
    let mut frame = [0_u64; STACK_WIPED_BYTES / 8];
    zeroize::Zeroize::zeroize(&mut frame[..]);
    std::hint::black_box(&frame);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::verify::verify;
    use proptest::prelude::*;

    fn hex(text: &str) -> Vec<u8> {
        text.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn derive(seed: &[u8], path: &str) -> DerivedKey {
        DerivedKey::derive(seed, &KeyPath::parse(path).unwrap(), 0)
    }

    // Computed apart from this code, with Python's `hmac` and `hashlib` (HKDF written out as in RFC 5869: extract with
    // the salt, one block of expand) and RFC 8032's reference arithmetic for the public key, itself checked against the
    // first vector of RFC 8032 §7.1. Columns: path, the 32 derived bytes, the public key.
    const COUNTING: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const ONES: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";
    const VECTORS: [(&str, &str, &str, &str); 10] = [
        (
            COUNTING,
            "/orbital",
            "d77ab5f8f9026daea58ddf55bdf3c75f599ea1082de67279a0b1d56652811355",
            "6da79491c05cbc5ca298a5064b61a6616d7c967af98a41939a85756e3a6b558b",
        ),
        (
            COUNTING,
            "/orbital/system",
            "81ef9f9fb279f318328ccd75266b8b63f4fbdacd5582f8b61bb4ee7f9377268a",
            "15088014e605eb5c728871b48157fc833dab21f5e69412694d31606e25c4a230",
        ),
        (
            COUNTING,
            "/orbital/services/axiom",
            "017229f1afff70abdc8817b264d430fdbbfac7c9710a10ca980cd7fc430cd9e0",
            "c59f6bc362ee78a0dace37321deeb2d50aec8c6eba7f8758674449455e866b76",
        ),
        (
            COUNTING,
            "/orbital/users/alice/signing",
            "50033988fb909cba476414414fdec72fb6e8bfd4f547b61f52ee8f0423b4f08c",
            "88848f5b82a818a92c943b4ddd79320df2d5689ab0fcfc6fd7f6359844c757c5",
        ),
        (
            COUNTING,
            "/orbital/users/é",
            "a1f421dded8169b270309445116a84f65f9a7974a5a95dd44a94615e3d832a65",
            "7c77b3dfbf655ba757cec39845c06675464b29c8eb8851ddf08eebf4b9764398",
        ),
        (
            ONES,
            "/orbital",
            "dc9b0aa2c001d25754c46e2ce1133e825a47fd0a5643bc03ca0621ccd961e65d",
            "e1a1506f0cff36f72e10ea12205567be4c073079044fb77f5eb4646a27500a3e",
        ),
        (
            ONES,
            "/orbital/system",
            "7c7516847679286e2959e9c62cd3a325e35095a4197981f28742f606a4ec1fc6",
            "2065981f58776bea5d8076aa0ab1e0be91ccbedb399519275817ad2a8c64072c",
        ),
        (
            ONES,
            "/orbital/services/axiom",
            "d47da41e36bfc2f7a8c98bdd62a84ccae45b63315a078f27b115c903265ea41b",
            "dfcd044aea9d8553a4f0873aa5bdf02c924c515b658574722cd8e68656254886",
        ),
        (
            ONES,
            "/orbital/users/alice/signing",
            "4008035321b3d21a535d0d1723ab31b035d996e53dad81fd16911ba6c0ad5ff1",
            "3b297bd60b9ce19b2a522ec3162e8706425effa3dc52f2281cd49577604340f8",
        ),
        (
            ONES,
            "/orbital/users/é",
            "e22c69083b7b78d0265b82c99df2b84cd1424b376333b830b68cb8ffec494132",
            "aa54566706b7acf0632a281a9114f84fd2246b6d34910be1607f5b55d3f75725",
        ),
    ];

    /// covers: KEY-19, KEY-24, KEY-25, KEY-27
    #[test]
    fn keys_are_those_of_the_fixed_vectors() {
        for (seed, path, secret, public) in VECTORS {
            let key = derive(&hex(seed), path);
            assert_eq!(key.0.as_bytes()[..], hex(secret), "{path}");
            assert_eq!(key.public_key().0[..], hex(public), "{path}");
        }
        let mut master = Secret::default();
        hkdf_sha256(&hex(COUNTING), b"", MASTER_INFO, &mut master);
        assert_eq!(master[..], hex("7329de67323304d91ba55164511df4095e265a6cef9a9a13ea64aaf4794ac02d"));
    }

    /// Computed apart from this code, with Python's `hmac` and PyNaCl.
    #[test]
    fn keys_of_later_epochs_are_those_of_the_fixed_vectors() {
        let path = KeyPath::parse("/orbital/users/alice/signing").unwrap();
        for (epoch, secret, public) in [
            (
                1,
                "f00fb6b7e5b79afb45778770820e35a99d7df1d8594c41042f37c204f03f040a",
                "625572b29a66a8f4f35ba0d53aa2fa41c2f40fbde35e6fc8f8d2c0c94d6ac812",
            ),
            (
                256,
                "f7c24842c25093e2780cf26bb1b93b9289715519461a63123d59db656936d31e",
                "b595a8223049bd8c606cc621193de48cf909b6648b5f8c3d93ced22c892cbc2b",
            ),
        ] {
            let key = DerivedKey::derive(&hex(COUNTING), &path, epoch);
            assert_eq!(key.0.as_bytes()[..], hex(secret), "{epoch}");
            assert_eq!(key.public_key().0[..], hex(public), "{epoch}");
        }
    }

    /// covers: KEY-14, KEY-21
    #[test]
    fn a_signature_is_ed25519_over_the_hash_bytes() {
        let key = derive(&hex(COUNTING), "/orbital/users/alice/signing");
        let signature = key.sign(&Hash([7; 32]));
        let expected = "dd2851d1a6917197b379470b116a78fae55929561a99622350ed9dc8cd02d33c\
                        23d3ebe48a88799158ea6e641413749230be745547d2bf32747be867b6df530a";
        assert_eq!(signature.0[..], hex(expected));
        assert_eq!(verify(&key.public_key(), &[7; 32], &signature), Ok(true));
    }

    /// covers: KEY-26
    #[test]
    fn paths_and_their_parents_have_unrelated_keys() {
        let seed = hex(COUNTING);
        let paths = ["/a", "/a/b", "/b", "/b/a", "/a/b/c", "/ab"];
        let keys: std::collections::BTreeSet<_> = paths.map(|path| derive(&seed, path).public_key()).into();
        assert_eq!(keys.len(), paths.len());
        // Knowing the child's key and its segment gives no step back: one more step from the child is not the parent.
        let child = derive(&seed, "/a/b");
        assert_ne!(derive(child.0.as_bytes(), "/a").public_key(), derive(&seed, "/a").public_key());
    }

    proptest! {
        #[test]
        fn any_two_seeds_or_paths_differ(a in any::<[u8; 32]>(), b in any::<[u8; 32]>(), x in "[a-z]{1,9}", y in "[a-z]{1,9}") {
            let one = derive(&a, &format!("/{x}")).public_key();
            prop_assert_eq!(one, derive(&a, &format!("/{x}")).public_key());
            prop_assert_eq!(one == derive(&b, &format!("/{x}")).public_key(), a == b);
            prop_assert_eq!(one == derive(&a, &format!("/{y}")).public_key(), x == y);
        }
    }

    /// Prints what a key costs: `cargo test -p keys --release -- --ignored --nocapture cost`.
    #[test]
    #[ignore = "a measurement, not a check"]
    fn cost_of_a_key() {
        const TIMES: u32 = 5000;
        let seed = hex(COUNTING);
        let time = |name: &str, mut work: Box<dyn FnMut() + '_>| {
            let start = std::time::Instant::now();
            (0..TIMES).for_each(|_| work());
            println!("{name}: {:?}", start.elapsed() / TIMES);
        };
        let path = KeyPath::parse("/orbital/users/alice/signing").unwrap();
        let key = DerivedKey::derive(&seed, &path, 0);
        let (public, message) = (key.public_key(), Hash([7; 32]));
        let signature = key.sign(&message);
        time(
            "derive, 4 segments",
            Box::new(|| drop(std::hint::black_box(DerivedKey::derive(&seed, &path, 0)))),
        );
        time(
            "derive with a clean stack",
            Box::new(|| drop(std::hint::black_box(with_clean_stack(|| DerivedKey::derive(&seed, &path, 0))))),
        );
        time(
            "sign",
            Box::new(|| {
                std::hint::black_box(key.sign(&message));
            }),
        );
        time("verify", Box::new(|| drop(std::hint::black_box(verify(&public, &message.0, &signature)))));
    }
}
