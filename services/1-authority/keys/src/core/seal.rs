//! `seed.sealed`: the seed under a key that comes from a passphrase, a credential or a local key file (KEY-41, KEY-43).
//!
//! Layout in README.md, "The sealed seed". Opening writes the seed straight into the caller's (secret) memory.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use minicbor::{Decode, Encode};
use sha2::Sha256;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use super::derive::SEED_BYTES;

const MAGIC: &[u8; 16] = b"bailiwick-seed\0\n";
const VERSION: u16 = 1;
const SALT_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// Header: magic, version, kind, reserved byte, three parameters, salt, nonce. All of it is authenticated.
const HEADER_BYTES: usize = 16 + 2 + 1 + 1 + 12 + SALT_BYTES + NONCE_BYTES;
/// The file has exactly this size.
pub const SEALED_BYTES: usize = HEADER_BYTES + SEED_BYTES + TAG_BYTES;
/// Random bytes that one seal uses up.
pub const SEAL_ENTROPY_BYTES: usize = SALT_BYTES + NONCE_BYTES;
/// Info of the HKDF step that turns a local key file into a sealing key.
const KEY_FILE_INFO: &[u8] = b"bailiwick-seed-seal-v1";

/// A local key file holds exactly this many random bytes.
pub const KEY_FILE_BYTES: usize = 32;
/// Shorter credentials are refused: they are guessed, not stolen.
pub const CREDENTIAL_BYTES_MIN: usize = 16;
/// Shorter passphrases are refused.
pub const PASSPHRASE_BYTES_MIN: usize = 8;
/// Longest passphrase or credential, so that the boundary can hold it in one page.
pub const SECRET_BYTES_MAX: usize = 1024;

/// What the sealing key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum SecretKind {
    /// 32 random bytes in a 0600 file of the node itself.
    #[n(0)]
    KeyFile,
    /// A file in `$CREDENTIALS_DIRECTORY`.
    #[n(1)]
    Credential,
    #[n(2)]
    Passphrase,
}

/// Cost of Argon2id; all zero for a key file, which needs no stretching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StretchCost {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

/// Highest accepted cost: a sealed file of another's making must not take a gigabyte or a minute.
pub const COST_MAX: StretchCost = StretchCost { memory_kib: 256 * 1024, passes: 16, lanes: 4 };
/// Lowest accepted cost: a rewritten file must not lure a passphrase into a weak hash.
pub const COST_MIN: StretchCost = StretchCost { memory_kib: 8 * 1024, passes: 1, lanes: 1 };

impl SecretKind {
    pub const ALL: [Self; 3] = [Self::KeyFile, Self::Credential, Self::Passphrase];

    /// As it is named between processes and to people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeyFile => "key_file",
            Self::Credential => "credential",
            Self::Passphrase => "passphrase",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What new files record. Passphrase: RFC 9106's second recommendation. Credential: OWASP's minimum, it is random.
    #[must_use]
    pub const fn cost(self) -> StretchCost {
        match self {
            Self::KeyFile => StretchCost { memory_kib: 0, passes: 0, lanes: 0 },
            Self::Credential => StretchCost { memory_kib: 19 * 1024, passes: 2, lanes: 1 },
            Self::Passphrase => StretchCost { memory_kib: 64 * 1024, passes: 3, lanes: 4 },
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::KeyFile => 0,
            Self::Credential => 1,
            Self::Passphrase => 2,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::KeyFile),
            1 => Some(Self::Credential),
            2 => Some(Self::Passphrase),
            _ => None,
        }
    }

    /// Checks the length of a secret of this kind.
    pub const fn check(self, secret: &[u8]) -> Result<(), SealError> {
        let (min, max) = match self {
            Self::KeyFile => (KEY_FILE_BYTES, KEY_FILE_BYTES),
            Self::Credential => (CREDENTIAL_BYTES_MIN, SECRET_BYTES_MAX),
            Self::Passphrase => (PASSPHRASE_BYTES_MIN, SECRET_BYTES_MAX),
        };
        if secret.len() < min || secret.len() > max {
            return Err(SealError::SecretLength { kind: self, min, max });
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    #[error("a sealed seed has {SEALED_BYTES} bytes, this file has {0}")]
    Length(usize),
    #[error("this is not a sealed seed")]
    Magic,
    #[error("the seed is sealed in format {0}, this build reads format {VERSION}; use a newer one")]
    Version(u16),
    #[error("unknown kind of seal: {0}")]
    Kind(u8),
    #[error("the seed is sealed by a {sealed_by:?}, but a {given:?} was given")]
    OtherKind { sealed_by: SecretKind, given: SecretKind },
    #[error("stretching cost {0:?} is outside {COST_MIN:?} to {COST_MAX:?}")]
    Cost(StretchCost),
    #[error("a {kind:?} has {min} to {max} bytes")]
    SecretLength { kind: SecretKind, min: usize, max: usize },
    #[error("the seal does not open: wrong secret, or the file is damaged")]
    Refused,
    #[error("out of memory while stretching the secret")]
    Memory,
}

/// The readable part of a sealed file.
struct Header {
    kind: SecretKind,
    cost: StretchCost,
    salt: [u8; SALT_BYTES],
    nonce: [u8; NONCE_BYTES],
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEALED_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([self.kind.code(), 0]);
        for number in [self.cost.memory_kib, self.cost.passes, self.cost.lanes] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.salt);
        bytes.extend(self.nonce);
        bytes
    }

    fn decode(sealed: &[u8]) -> Result<Self, SealError> {
        let mut rest = sealed;
        if take::<16>(&mut rest)? != *MAGIC {
            return Err(SealError::Magic);
        }
        // Before the length: a later format may be longer.
        let version = u16::from_le_bytes(take(&mut rest)?);
        if version != VERSION {
            return Err(SealError::Version(version));
        }
        if sealed.len() != SEALED_BYTES {
            return Err(SealError::Length(sealed.len()));
        }
        let [kind, reserved] = take(&mut rest)?;
        let kind = SecretKind::from_code(kind).filter(|_| reserved == 0).ok_or(SealError::Kind(kind))?;
        let cost = StretchCost {
            memory_kib: u32::from_le_bytes(take(&mut rest)?),
            passes: u32::from_le_bytes(take(&mut rest)?),
            lanes: u32::from_le_bytes(take(&mut rest)?),
        };
        check_cost(kind, cost)?;
        Ok(Self { kind, cost, salt: take(&mut rest)?, nonce: take(&mut rest)? })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], SealError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(SealError::Length(rest.len()))?;
    *rest = tail;
    Ok(*head)
}

fn check_cost(kind: SecretKind, cost: StretchCost) -> Result<(), SealError> {
    let within = |value, min, max| (min..=max).contains(&value);
    let legal = match kind {
        SecretKind::KeyFile => cost == kind.cost(),
        SecretKind::Credential | SecretKind::Passphrase => {
            within(cost.memory_kib, COST_MIN.memory_kib, COST_MAX.memory_kib)
                && within(cost.passes, COST_MIN.passes, COST_MAX.passes)
                && within(cost.lanes, COST_MIN.lanes, COST_MAX.lanes)
        }
    };
    if legal { Ok(()) } else { Err(SealError::Cost(cost)) }
}

fn sealing_key(header: &Header, secret: &[u8]) -> Result<Zeroizing<[u8; 32]>, SealError> {
    header.kind.check(secret)?;
    let mut key = Zeroizing::new([0; 32]);
    if header.kind == SecretKind::KeyFile {
        let hkdf = Hkdf::<Sha256>::new(Some(&header.salt), secret);
        hkdf.expand(KEY_FILE_INFO, &mut key[..]).map_err(|_| SealError::Refused)?;
        return Ok(key);
    }
    let StretchCost { memory_kib, passes, lanes } = header.cost;
    let params =
        Params::new(memory_kib, passes, lanes, Some(32)).map_err(|_| SealError::Cost(header.cost))?;
    let mut blocks: Vec<Block> = Vec::new();
    blocks.try_reserve_exact(params.block_count()).map_err(|_| SealError::Memory)?;
    blocks.resize(params.block_count(), Block::default());
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let done = argon.hash_password_into_with_memory(secret, &header.salt, &mut key[..], &mut blocks[..]);
    blocks.iter_mut().for_each(Zeroize::zeroize);
    done.map_err(|_| SealError::Memory)?;
    Ok(key)
}

/// Seals `seed`. `entropy` is fresh from the kernel's random source and used for nothing else.
pub(crate) fn seal(
    seed: &[u8; SEED_BYTES],
    kind: SecretKind,
    secret: &[u8],
    entropy: &[u8; SEAL_ENTROPY_BYTES],
) -> Result<Vec<u8>, SealError> {
    seal_at_cost(seed, kind, kind.cost(), secret, entropy)
}

fn seal_at_cost(
    seed: &[u8; SEED_BYTES],
    kind: SecretKind,
    cost: StretchCost,
    secret: &[u8],
    entropy: &[u8; SEAL_ENTROPY_BYTES],
) -> Result<Vec<u8>, SealError> {
    let mut rest = &entropy[..];
    let header = Header { kind, cost, salt: take(&mut rest)?, nonce: take(&mut rest)? };
    let cipher = XChaCha20Poly1305::new(&(*sealing_key(&header, secret)?).into());
    let mut sealed = header.encode();
    let mut body = Zeroizing::new(*seed);
    let tag = cipher
        .encrypt_inout_detached(&XNonce::from(header.nonce), &sealed, body.as_mut_slice().into())
        .map_err(|_| SealError::Refused)?;
    sealed.extend(*body);
    sealed.extend(tag);
    Ok(sealed)
}

/// What a file is sealed by, without opening it.
pub fn sealed_by(sealed: &[u8]) -> Result<SecretKind, SealError> {
    Ok(Header::decode(sealed)?.kind)
}

/// Opens `sealed` into `seed`, which is all zero after a failure.
pub(crate) fn open(
    sealed: &[u8],
    kind: SecretKind,
    secret: &[u8],
    seed: &mut [u8; SEED_BYTES],
) -> Result<(), SealError> {
    let header = Header::decode(sealed)?;
    if header.kind != kind {
        return Err(SealError::OtherKind { sealed_by: header.kind, given: kind });
    }
    let (associated, body) = sealed.split_at_checked(HEADER_BYTES).ok_or(SealError::Length(sealed.len()))?;
    let (body, tag) = body.split_first_chunk::<SEED_BYTES>().ok_or(SealError::Length(sealed.len()))?;
    let tag = Tag::try_from(tag).map_err(|_| SealError::Length(sealed.len()))?;
    let cipher = XChaCha20Poly1305::new(&(*sealing_key(&header, secret)?).into());
    seed.copy_from_slice(body);
    let opened = cipher.decrypt_inout_detached(
        &XNonce::from(header.nonce),
        associated,
        seed.as_mut_slice().into(),
        &tag,
    );
    opened.map_err(|_| {
        seed.zeroize();
        SealError::Refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: [u8; 32] = [0x5a; 32];
    const ENTROPY: [u8; SEAL_ENTROPY_BYTES] = [9; SEAL_ENTROPY_BYTES];
    const WORDS: &[u8] = b"correct horse battery staple";
    const CHEAP: StretchCost = COST_MIN;

    fn opened(sealed: &[u8], kind: SecretKind, secret: &[u8]) -> Result<[u8; 32], SealError> {
        let mut seed = [1; 32];
        open(sealed, kind, secret, &mut seed).map(|()| seed).inspect_err(|error| {
            let zeroed = seed == [0; 32] || seed == [1; 32];
            assert!(zeroed, "{error}: something of the seed was left behind");
        })
    }

    /// covers: KEY-41, KEY-43
    #[test]
    fn each_kind_of_secret_opens_what_it_sealed_and_no_other_does() {
        for (kind, secret) in [
            (SecretKind::KeyFile, &[3; 32][..]),
            (SecretKind::Credential, &[4; 16]),
            (SecretKind::Passphrase, WORDS),
        ] {
            let sealed = seal(&SEED, kind, secret, &ENTROPY).unwrap();
            assert_eq!((sealed.len(), sealed_by(&sealed)), (SEALED_BYTES, Ok(kind)));
            assert_eq!(opened(&sealed, kind, secret), Ok(SEED));
            assert!(!sealed.windows(8).any(|w| w == &SEED[..8]), "the seed is readable");
            let mut other = secret.to_vec();
            other[0] ^= 1;
            assert_eq!(opened(&sealed, kind, &other), Err(SealError::Refused));
            let given =
                if kind == SecretKind::Passphrase { SecretKind::Credential } else { SecretKind::Passphrase };
            assert_eq!(opened(&sealed, given, WORDS), Err(SealError::OtherKind { sealed_by: kind, given }));
        }
    }

    /// The file that the tests of the process start from, and the format's fixed vector.
    #[test]
    fn the_fixed_file_opens() {
        let mut seed = [0; 32];
        seed.iter_mut().zip(0..).for_each(|(byte, n)| *byte = n);
        let file = include_bytes!("../../tests/counting-seed.sealed");
        assert_eq!(opened(file, SecretKind::KeyFile, &[1; 32]), Ok(seed));
        assert_eq!(seal(&seed, SecretKind::KeyFile, &[1; 32], &ENTROPY).unwrap(), file);
    }

    #[test]
    fn every_flipped_bit_of_the_file_is_refused() {
        let secret = [3; 32];
        let sealed = seal(&SEED, SecretKind::KeyFile, &secret, &ENTROPY).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = opened(&bad, SecretKind::KeyFile, &secret).unwrap_err();
            let expected = match bit / 8 {
                0..16 => matches!(error, SealError::Magic),
                16..18 => matches!(error, SealError::Version(_)),
                18 => matches!(error, SealError::Kind(_) | SealError::Cost(_)),
                19 => matches!(error, SealError::Kind(_)),
                20..32 => matches!(error, SealError::Cost(_)),
                _ => error == SealError::Refused,
            };
            assert!(expected, "bit {bit}: {error}");
        }
    }

    #[test]
    fn recorded_cost_is_authenticated_too() {
        let sealed = seal_at_cost(&SEED, SecretKind::Passphrase, CHEAP, WORDS, &ENTROPY).unwrap();
        assert_eq!(opened(&sealed, SecretKind::Passphrase, WORDS), Ok(SEED));
        for byte in [20, 24, 28] {
            let mut bad = sealed.clone();
            bad[byte] += 1;
            assert_eq!(opened(&bad, SecretKind::Passphrase, WORDS), Err(SealError::Refused), "byte {byte}");
        }
        // Same key, other header: only the associated data tells.
        let mut credential = sealed;
        credential[18] = SecretKind::Credential.code();
        assert_eq!(opened(&credential, SecretKind::Credential, WORDS), Err(SealError::Refused));
    }

    #[test]
    fn a_format_from_the_future_and_a_wrong_length_are_named() {
        let sealed = seal(&SEED, SecretKind::KeyFile, &[3; 32], &ENTROPY).unwrap();
        let mut future = sealed.clone();
        future[16] = 2;
        future.push(0);
        assert_eq!(sealed_by(&future), Err(SealError::Version(2)));
        let mut long = sealed.clone();
        long.push(0);
        assert_eq!(sealed_by(&long), Err(SealError::Length(SEALED_BYTES + 1)));
        for length in 0..SEALED_BYTES {
            assert!(matches!(sealed_by(&sealed[..length]), Err(SealError::Length(_))), "{length}");
        }
    }

    #[test]
    fn cost_is_bounded_before_it_is_paid() {
        let with = |memory_kib, passes, lanes| {
            check_cost(SecretKind::Passphrase, StretchCost { memory_kib, passes, lanes }).is_ok()
        };
        let (min, max) = (COST_MIN, COST_MAX);
        assert!(with(min.memory_kib, min.passes, min.lanes) && with(max.memory_kib, max.passes, max.lanes));
        assert!(!with(min.memory_kib - 1, 1, 1) && !with(max.memory_kib + 1, 1, 1));
        assert!(!with(min.memory_kib, 0, 1) && !with(min.memory_kib, max.passes + 1, 1));
        assert!(!with(min.memory_kib, 1, 0) && !with(min.memory_kib, 1, max.lanes + 1));
    }

    #[test]
    fn secrets_have_their_lengths() {
        for (kind, min, max) in [
            (SecretKind::KeyFile, 32, 32),
            (SecretKind::Credential, CREDENTIAL_BYTES_MIN, SECRET_BYTES_MAX),
            (SecretKind::Passphrase, PASSPHRASE_BYTES_MIN, SECRET_BYTES_MAX),
        ] {
            for (length, legal) in [(min - 1, false), (min, true), (max, true), (max + 1, false)] {
                assert_eq!(kind.check(&vec![1; length]).is_ok(), legal, "{kind:?} {length}");
            }
        }
    }
}
