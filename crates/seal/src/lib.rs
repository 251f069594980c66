//! A secret of 32 bytes under a key that comes from a passphrase, a credential, a local key file or a TPM (KEY-41, KEY-43).
//!
//! Promises: what was sealed as one thing opens as nothing else; whatever was changed in a file is noticed; opening writes
//! straight into the caller's (secret) memory, which is zero after a failure. Never does: read a file, a clock or dice;
//! keep what it saw. Calls nobody; is a library and cannot die alone. Layout and vectors in docs/format.md.

mod kind;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::Sha256;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

pub use kind::{
    COST_MAX, COST_MIN, CREDENTIAL_BYTES_MIN, Contents, KEY_FILE_BYTES, PASSPHRASE_BYTES_MIN,
    SECRET_BYTES_MAX, SecretKind, Signer, StretchCost,
};

/// Bytes of what is sealed: the root seed, or an Ed25519 secret key.
pub const SEALED_SECRET_BYTES: usize = 32;
const SEED_MAGIC: &[u8; 16] = b"bailiwick-seed\0\n";
const KEY_MAGIC: &[u8; 16] = b"bailiwick-key\0\0\n";
const VERSION: u16 = 1;
const SALT_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// Header: magic, version, kind, contents, three parameters, salt, nonce. All of it is authenticated.
const HEADER_BYTES: usize = 16 + 2 + 1 + 1 + 12 + SALT_BYTES + NONCE_BYTES;
/// The file has exactly this size.
pub const SEALED_BYTES: usize = HEADER_BYTES + SEALED_SECRET_BYTES + TAG_BYTES;
/// Random bytes that one seal uses up.
pub const SEAL_ENTROPY_BYTES: usize = SALT_BYTES + NONCE_BYTES;
/// Info of the HKDF step that turns a local key file into the sealing key of the seed.
const SEED_INFO: &[u8] = b"bailiwick-seed-seal-v1";
/// The same for a signing key, whatever its seal comes from; the signer's name follows.
const KEY_INFO: &[u8] = b"bailiwick-key-seal-v1\0";

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    #[error("a sealed secret has {SEALED_BYTES} bytes, this file has {0}")]
    Length(usize),
    #[error("this is not a sealed secret")]
    Magic,
    #[error("this is sealed in format {0}, this build reads format {VERSION}; use a newer one")]
    Version(u16),
    #[error("unknown kind of seal: {0}")]
    Kind(u8),
    #[error("unknown contents: {0}")]
    Contents(u8),
    #[error("this file holds the {found}, not the {wanted}")]
    OtherContents { wanted: Contents, found: Contents },
    #[error("this is sealed by a {sealed_by:?}, but a {given:?} was given")]
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
    contents: Contents,
    kind: SecretKind,
    cost: StretchCost,
    salt: [u8; SALT_BYTES],
    nonce: [u8; NONCE_BYTES],
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEALED_BYTES);
        bytes.extend(magic(self.contents));
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([self.kind.code(), self.contents.code()]);
        for number in [self.cost.memory_kib, self.cost.passes, self.cost.lanes] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.salt);
        bytes.extend(self.nonce);
        bytes
    }

    fn decode(sealed: &[u8]) -> Result<Self, SealError> {
        let mut rest = sealed;
        let found: [u8; 16] = take(&mut rest)?;
        if found != *SEED_MAGIC && found != *KEY_MAGIC {
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
        let [kind, code] = take(&mut rest)?;
        let kind = SecretKind::from_code(kind).ok_or(SealError::Kind(kind))?;
        let contents = Contents::from_code(code).filter(|contents| *magic(*contents) == found);
        let contents = contents.ok_or(SealError::Contents(code))?;
        let cost = StretchCost {
            memory_kib: u32::from_le_bytes(take(&mut rest)?),
            passes: u32::from_le_bytes(take(&mut rest)?),
            lanes: u32::from_le_bytes(take(&mut rest)?),
        };
        check_cost(kind, cost)?;
        Ok(Self { contents, kind, cost, salt: take(&mut rest)?, nonce: take(&mut rest)? })
    }
}

/// What people see who look into the file.
const fn magic(contents: Contents) -> &'static [u8; 16] {
    match contents {
        Contents::Seed => SEED_MAGIC,
        Contents::SigningKey(_) => KEY_MAGIC,
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
        SecretKind::KeyFile | SecretKind::Tpm2 | SecretKind::RootSeed => cost == kind.cost(),
        SecretKind::Credential | SecretKind::Passphrase => {
            within(cost.memory_kib, COST_MIN.memory_kib, COST_MAX.memory_kib)
                && within(cost.passes, COST_MIN.passes, COST_MAX.passes)
                && within(cost.lanes, COST_MIN.lanes, COST_MAX.lanes)
        }
    };
    if legal { Ok(()) } else { Err(SealError::Cost(cost)) }
}

/// The key of one file: from the secret, the file's salt, and what the file holds.
fn sealing_key(header: &Header, secret: &[u8]) -> Result<Zeroizing<[u8; 32]>, SealError> {
    header.kind.check(secret)?;
    let stretched = match header.kind {
        SecretKind::KeyFile | SecretKind::Tpm2 | SecretKind::RootSeed => None,
        SecretKind::Credential | SecretKind::Passphrase => Some(stretch(header, secret)?),
    };
    let info: [&[u8]; 2] = match (header.contents, &stretched) {
        // So the seed was sealed before there were other contents.
        (Contents::Seed, Some(stretched)) => return Ok(stretched.clone()),
        (Contents::Seed, None) => [SEED_INFO, b""],
        (Contents::SigningKey(signer), _) => [KEY_INFO, signer.name().as_bytes()],
    };
    let input = stretched.as_ref().map_or(secret, |stretched| &stretched[..]);
    let mut key = Zeroizing::new([0; 32]);
    let hkdf = Hkdf::<Sha256>::new(Some(&header.salt), input);
    hkdf.expand_multi_info(&info, &mut key[..]).map_err(|_| SealError::Refused)?;
    Ok(key)
}

fn stretch(header: &Header, secret: &[u8]) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let StretchCost { memory_kib, passes, lanes } = header.cost;
    let params =
        Params::new(memory_kib, passes, lanes, Some(32)).map_err(|_| SealError::Cost(header.cost))?;
    let mut blocks: Vec<Block> = Vec::new();
    blocks.try_reserve_exact(params.block_count()).map_err(|_| SealError::Memory)?;
    blocks.resize(params.block_count(), Block::default());
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut key = Zeroizing::new([0; 32]);
    let done = argon.hash_password_into_with_memory(secret, &header.salt, &mut key[..], &mut blocks[..]);
    blocks.iter_mut().for_each(Zeroize::zeroize);
    done.map_err(|_| SealError::Memory)?;
    Ok(key)
}

/// Seals `plain`. `entropy` is fresh from the kernel's random source and used for nothing else.
pub fn seal(
    contents: Contents,
    plain: &[u8; SEALED_SECRET_BYTES],
    kind: SecretKind,
    secret: &[u8],
    entropy: &[u8; SEAL_ENTROPY_BYTES],
) -> Result<Vec<u8>, SealError> {
    seal_at_cost(contents, plain, kind, kind.cost(), secret, entropy)
}

fn seal_at_cost(
    contents: Contents,
    plain: &[u8; SEALED_SECRET_BYTES],
    kind: SecretKind,
    cost: StretchCost,
    secret: &[u8],
    entropy: &[u8; SEAL_ENTROPY_BYTES],
) -> Result<Vec<u8>, SealError> {
    let mut rest = &entropy[..];
    let header = Header { contents, kind, cost, salt: take(&mut rest)?, nonce: take(&mut rest)? };
    let cipher = XChaCha20Poly1305::new(&(*sealing_key(&header, secret)?).into());
    let mut sealed = header.encode();
    let mut body = Zeroizing::new(*plain);
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

/// Opens `sealed` into `plain`, which is all zero after a failure to decrypt and untouched after any other.
pub fn open(
    contents: Contents,
    sealed: &[u8],
    kind: SecretKind,
    secret: &[u8],
    plain: &mut [u8; SEALED_SECRET_BYTES],
) -> Result<(), SealError> {
    let header = Header::decode(sealed)?;
    if header.contents != contents {
        return Err(SealError::OtherContents { wanted: contents, found: header.contents });
    }
    if header.kind != kind {
        return Err(SealError::OtherKind { sealed_by: header.kind, given: kind });
    }
    let (associated, body) = sealed.split_at_checked(HEADER_BYTES).ok_or(SealError::Length(sealed.len()))?;
    let (body, tag) =
        body.split_first_chunk::<SEALED_SECRET_BYTES>().ok_or(SealError::Length(sealed.len()))?;
    let tag = Tag::try_from(tag).map_err(|_| SealError::Length(sealed.len()))?;
    let cipher = XChaCha20Poly1305::new(&(*sealing_key(&header, secret)?).into());
    plain.copy_from_slice(body);
    let opened = cipher.decrypt_inout_detached(
        &XNonce::from(header.nonce),
        associated,
        plain.as_mut_slice().into(),
        &tag,
    );
    opened.map_err(|_| {
        plain.zeroize();
        SealError::Refused
    })
}

#[cfg(test)]
mod tests;
