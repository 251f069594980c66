//! Where the sealed seed lies, and what opens it and the signing keys. Names and one careful read; nothing is kept.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use base::layout::Layout;
use seal::{SECRET_BYTES_MAX, SecretKind};
use thiserror::Error;
use zeroize::Zeroizing;

/// The service in whose folder the seed and the local key file lie.
pub const FOLDER: &str = "keys";
pub const SEALED_SEED_FILE: &str = "seed.sealed";
/// The local key that opens the seals where no credential is given.
pub const SEAL_KEY_FILE: &str = "seal.key";
/// Name of the credential that opens the seals, in `$CREDENTIALS_DIRECTORY`.
pub const SEAL_CREDENTIAL: &str = "bailiwick.seal";

#[derive(Debug, Error)]
pub enum SecretFault {
    #[error("{} is given by no file here; {}", .0.name(), remedy(*.0))]
    NotGiven(SecretKind),
    #[error("cannot read {path:?}, which opens the seals")]
    Read { path: PathBuf, source: io::Error },
}

fn remedy(kind: SecretKind) -> String {
    match kind {
        SecretKind::KeyFile => format!("restore state/{FOLDER}/{SEAL_KEY_FILE} from a copy"),
        SecretKind::Credential => {
            format!("start the node with $CREDENTIALS_DIRECTORY that holds {SEAL_CREDENTIAL}")
        }
        SecretKind::Passphrase => "a passphrase opens no seal unattended".to_owned(),
    }
}

/// The files that open seals, on this node and at this start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    key_file: PathBuf,
    credential: Option<PathBuf>,
}

/// What opens a seal; wiped when it is dropped.
pub struct Secret {
    pub kind: SecretKind,
    buffer: Zeroizing<[u8; SECRET_BYTES_MAX + 1]>,
    bytes: usize,
}

impl Secrets {
    #[must_use]
    pub fn of(layout: &Layout) -> Self {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let credential = credentials.map(|folder| folder.join(SEAL_CREDENTIAL)).filter(|file| file.is_file());
        Self::at(layout.service_state(FOLDER).join(SEAL_KEY_FILE), credential)
    }

    #[must_use]
    pub const fn at(key_file: PathBuf, credential: Option<PathBuf>) -> Self {
        Self { key_file, credential }
    }

    /// What a new node is sealed by.
    #[must_use]
    pub const fn preferred(&self) -> SecretKind {
        match self.credential {
            Some(_) => SecretKind::Credential,
            None => SecretKind::KeyFile,
        }
    }

    pub fn file(&self, kind: SecretKind) -> Result<&Path, SecretFault> {
        let file = match kind {
            SecretKind::KeyFile => Some(&self.key_file).filter(|file| file.is_file()),
            SecretKind::Credential => self.credential.as_ref(),
            SecretKind::Passphrase => None,
        };
        file.map(PathBuf::as_path).ok_or(SecretFault::NotGiven(kind))
    }

    pub fn read(&self, kind: SecretKind) -> Result<Secret, SecretFault> {
        let path = self.file(kind)?;
        let failed = |source| SecretFault::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        // One byte more than allowed, so that too long is noticed when it is used.
        let mut secret = Secret { kind, buffer: Zeroizing::new([0; SECRET_BYTES_MAX + 1]), bytes: 0 };
        while let Some(rest) = secret.buffer.get_mut(secret.bytes..).filter(|rest| !rest.is_empty()) {
            match file.read(rest).map_err(failed)? {
                0 => break,
                read => secret.bytes = secret.bytes.saturating_add(read),
            }
        }
        Ok(secret)
    }
}

impl Secret {
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.buffer.get(..self.bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_whole_and_what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (key_file, credential) = (folder.path().join("key"), folder.path().join("credential"));
        let without = Secrets::at(key_file.clone(), None);
        assert_eq!(without.preferred(), SecretKind::KeyFile);
        let missing = |kind| without.read(kind).err().unwrap().to_string();
        assert!(missing(SecretKind::KeyFile).contains("restore state/keys/seal.key"));
        assert!(missing(SecretKind::Credential).contains("$CREDENTIALS_DIRECTORY"));
        assert!(missing(SecretKind::Passphrase).contains("unattended"));
        std::fs::write(&key_file, [3; 32]).unwrap();
        let both = Secrets::at(key_file, Some(credential.clone()));
        assert_eq!(both.preferred(), SecretKind::Credential);
        for bytes in [16, SECRET_BYTES_MAX, SECRET_BYTES_MAX + 1] {
            std::fs::write(&credential, vec![b'\n'; bytes]).unwrap();
            let secret = both.read(SecretKind::Credential).unwrap();
            assert_eq!((secret.kind, secret.as_slice().len()), (SecretKind::Credential, bytes));
        }
        assert_eq!(both.read(SecretKind::KeyFile).unwrap().as_slice(), [3; 32]);
    }
}
