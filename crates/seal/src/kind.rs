//! What a sealing key comes from, and what is sealed.

use minicbor::{Decode, Encode};

use crate::SealError;

/// A local key file, or a TPM, holds exactly this many random bytes.
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
    /// 32 random bytes that a TPM 2.0 keeps.
    #[n(3)]
    Tpm2,
    /// 32 bytes derived from the root seed: for copies of the signing keys, which recovery words bring back.
    #[n(4)]
    RootSeed,
}

/// Cost of Argon2id; all zero for 32 random bytes, which need no stretching.
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
    pub const ALL: [Self; 5] =
        [Self::KeyFile, Self::Credential, Self::Passphrase, Self::Tpm2, Self::RootSeed];

    /// As it is named between processes and to people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeyFile => "key_file",
            Self::Credential => "credential",
            Self::Passphrase => "passphrase",
            Self::Tpm2 => "tpm2",
            Self::RootSeed => "root_seed",
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
            Self::KeyFile | Self::Tpm2 | Self::RootSeed => StretchCost { memory_kib: 0, passes: 0, lanes: 0 },
            Self::Credential => StretchCost { memory_kib: 19 * 1024, passes: 2, lanes: 1 },
            Self::Passphrase => StretchCost { memory_kib: 64 * 1024, passes: 3, lanes: 4 },
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::KeyFile => 0,
            Self::Credential => 1,
            Self::Passphrase => 2,
            Self::Tpm2 => 3,
            Self::RootSeed => 4,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::KeyFile),
            1 => Some(Self::Credential),
            2 => Some(Self::Passphrase),
            3 => Some(Self::Tpm2),
            4 => Some(Self::RootSeed),
            _ => None,
        }
    }

    /// Checks the length of a secret of this kind.
    pub const fn check(self, secret: &[u8]) -> Result<(), SealError> {
        let (min, max) = match self {
            Self::KeyFile | Self::Tpm2 | Self::RootSeed => (KEY_FILE_BYTES, KEY_FILE_BYTES),
            Self::Credential => (CREDENTIAL_BYTES_MIN, SECRET_BYTES_MAX),
            Self::Passphrase => (PASSPHRASE_BYTES_MIN, SECRET_BYTES_MAX),
        };
        if secret.len() < min || secret.len() > max {
            return Err(SealError::SecretLength { kind: self, min, max });
        }
        Ok(())
    }
}

/// Whose signing key genesis pins. The codes stand in files and are never given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signer {
    Sequencer,
    Policy,
    Identity,
    Node,
}

impl Signer {
    pub const ALL: [Self; 4] = [Self::Sequencer, Self::Policy, Self::Identity, Self::Node];

    /// As it stands in the derivation of the sealing key.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sequencer => "sequencer",
            Self::Policy => "policy",
            Self::Identity => "identity",
            Self::Node => "node",
        }
    }
}

/// What a file holds. Each has a sealing key of its own, so none opens in the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// The root seed, from which `keys` derives.
    Seed,
    /// An Ed25519 secret key.
    SigningKey(Signer),
}

impl Contents {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Seed => 0,
            Self::SigningKey(Signer::Sequencer) => 1,
            Self::SigningKey(Signer::Policy) => 2,
            Self::SigningKey(Signer::Identity) => 3,
            Self::SigningKey(Signer::Node) => 4,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        let keys = Signer::ALL.map(Self::SigningKey);
        [Self::Seed].into_iter().chain(keys).find(|contents| contents.code() == code)
    }
}

impl std::fmt::Display for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Seed => f.write_str("root seed"),
            Self::SigningKey(signer) => write!(f, "{} signing key", signer.name()),
        }
    }
}
