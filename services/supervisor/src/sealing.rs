//! Where the sealed seed lies, and what opens it and the signing keys: names, one careful read, and a TPM where the node
//! was made with one. Nothing is kept.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use base::layout::Layout;
use rustix::pipe::{PipeFlags, pipe_with};
use seal::{SECRET_BYTES_MAX, SecretKind};
use thiserror::Error;
use tpm::{FILE_BYTES_MAX, FileError, Tpm, TpmError, TpmFile};
use zeroize::Zeroizing;

/// The service in whose folder the seed and the local key file lie.
pub const FOLDER: &str = "keys";
pub const SEALED_SEED_FILE: &str = "seed.sealed";
/// The local key that opens the seals where no credential is given.
pub const SEAL_KEY_FILE: &str = "seal.key";
/// What a TPM keeps in the place of the local key, if the node was made with one.
pub const SEAL_TPM_FILE: &str = "seal.tpm";
/// Name of the credential that opens the seals, in `$CREDENTIALS_DIRECTORY`.
pub const SEAL_CREDENTIAL: &str = "bailiwick.seal";

/// Where the key boundary takes what opens the seed from the operator, among the admin sockets.
pub const UNLOCK_SOCKET: &str = "keys_boundary";

#[derive(Debug, Error)]
pub enum SecretFault {
    #[error("{} is given by no file here; {}", .0.name(), remedy(*.0))]
    NotGiven(SecretKind),
    #[error("cannot read {path:?}, which opens the seals")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path:?} is not what a TPM opens the seals with; restore it from a copy")]
    TpmFile { path: PathBuf, source: FileError },
    #[error("the TPM at {device} does not open the seals; it must be the one that this node was made with")]
    Tpm { device: String, source: TpmError },
    #[error("cannot make the pipe that a secret is handed over in")]
    Pipe(#[source] io::Error),
}

fn remedy(kind: SecretKind) -> String {
    match kind {
        SecretKind::KeyFile => format!("restore state/{FOLDER}/{SEAL_KEY_FILE} from a copy"),
        SecretKind::Credential => {
            format!("start the node with $CREDENTIALS_DIRECTORY that holds {SEAL_CREDENTIAL}")
        }
        SecretKind::Passphrase => {
            "a passphrase opens no seal unattended: `bailiwick key unlock` asks for it".to_owned()
        }
        SecretKind::Tpm2 => format!("restore state/{FOLDER}/{SEAL_TPM_FILE} from a copy"),
        SecretKind::RootSeed => "`bailiwick recovery restore` opens it with the words".to_owned(),
    }
}

/// What is written beside a file until it takes its place.
pub(crate) const STAGED: &str = ".next";

/// The file in the folder of `keys` that a kind of secret has; none for what is not kept there.
#[must_use]
pub const fn secret_file(kind: SecretKind) -> Option<&'static str> {
    match kind {
        SecretKind::KeyFile => Some(SEAL_KEY_FILE),
        SecretKind::Tpm2 => Some(SEAL_TPM_FILE),
        SecretKind::Credential | SecretKind::Passphrase | SecretKind::RootSeed => None,
    }
}

/// The files that open seals, on this node and at this start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    key_file: PathBuf,
    credential: Option<PathBuf>,
    tpm: PathBuf,
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
    pub fn at(key_file: PathBuf, credential: Option<PathBuf>) -> Self {
        let tpm = key_file.with_file_name(SEAL_TPM_FILE);
        Self { key_file, credential, tpm }
    }

    /// The same with the credential of another folder, as a later start will find it.
    #[must_use]
    pub fn with_credential(mut self, folder: &Path) -> Self {
        self.credential = Some(folder.join(SEAL_CREDENTIAL));
        self
    }

    /// The same with the file of this kind that is about to take the place of the present one.
    #[must_use]
    pub fn staged(mut self, kind: SecretKind) -> Self {
        let staged = |file: &Path, name: &str| file.with_file_name(format!("{name}{STAGED}"));
        match kind {
            SecretKind::KeyFile => self.key_file = staged(&self.key_file, SEAL_KEY_FILE),
            SecretKind::Tpm2 => self.tpm = staged(&self.tpm, SEAL_TPM_FILE),
            SecretKind::Credential | SecretKind::Passphrase | SecretKind::RootSeed => {}
        }
        self
    }

    /// What a new node is sealed by.
    #[must_use]
    pub fn preferred(&self) -> SecretKind {
        match self.credential {
            _ if self.tpm.is_file() => SecretKind::Tpm2,
            Some(_) => SecretKind::Credential,
            None => SecretKind::KeyFile,
        }
    }

    fn file(&self, kind: SecretKind) -> Result<&Path, SecretFault> {
        let file = match kind {
            SecretKind::KeyFile => Some(&self.key_file).filter(|file| file.is_file()),
            SecretKind::Credential => self.credential.as_ref(),
            SecretKind::Passphrase | SecretKind::RootSeed => None,
            SecretKind::Tpm2 => Some(&self.tpm).filter(|file| file.is_file()),
        };
        file.map(PathBuf::as_path).ok_or(SecretFault::NotGiven(kind))
    }

    /// Where the key boundary reads the secret from. Blocks while a TPM works, some seconds at most.
    pub fn descriptor(&self, kind: SecretKind) -> Result<OwnedFd, SecretFault> {
        if kind == SecretKind::Tpm2 {
            return self.read(kind)?.in_pipe();
        }
        let path = self.file(kind)?;
        let opened = File::open(path);
        Ok(opened.map_err(|source| SecretFault::Read { path: path.to_owned(), source })?.into())
    }

    pub fn read(&self, kind: SecretKind) -> Result<Secret, SecretFault> {
        let path = self.file(kind)?;
        if kind == SecretKind::Tpm2 {
            return by_tpm(path);
        }
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

fn by_tpm(path: &Path) -> Result<Secret, SecretFault> {
    let failed = |source| SecretFault::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let most = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path).map_err(failed)?.take(most).read_to_end(&mut bytes).map_err(failed)?;
    let file =
        TpmFile::decode(&bytes).map_err(|source| SecretFault::TpmFile { path: path.to_owned(), source })?;
    let refused = |source| SecretFault::Tpm { device: file.device.clone(), source };
    let mut tpm = Tpm::open(Path::new(&file.device)).map_err(refused)?;
    let opened = tpm.unseal(&file.sealed);
    let ended = tpm.end();
    let opened = opened.map_err(refused)?;
    ended.map_err(refused)?;
    Ok(Secret::new(SecretKind::Tpm2, opened.as_slice()))
}

/// Has the TPM at `device` keep 32 fresh bytes; what becomes `SEAL_TPM_FILE`.
pub fn seal_by_tpm(device: &Path, secret: &[u8; tpm::SECRET_BYTES]) -> Result<Vec<u8>, SecretFault> {
    let refused = |source| SecretFault::Tpm { device: device.display().to_string(), source };
    let mut tpm = Tpm::open(device).map_err(refused)?;
    let sealed = tpm.seal(secret);
    let ended = tpm.end();
    let sealed = sealed.map_err(refused)?;
    ended.map_err(refused)?;
    let path = device.to_str().unwrap_or_default().to_owned();
    TpmFile { device: path, sealed }
        .encode()
        .map_err(|source| SecretFault::TpmFile { path: device.to_owned(), source })
}

impl Secret {
    /// Of what somebody typed or a file holds; too long is noticed when it is used.
    #[must_use]
    pub fn new(kind: SecretKind, bytes: &[u8]) -> Self {
        let mut secret = Self { kind, buffer: Zeroizing::new([0; SECRET_BYTES_MAX + 1]), bytes: 0 };
        for (to, from) in secret.buffer.iter_mut().zip(bytes) {
            *to = *from;
            secret.bytes = secret.bytes.saturating_add(1);
        }
        secret
    }

    /// In a pipe with nothing behind it, for the key boundary.
    pub fn in_pipe(&self) -> Result<OwnedFd, SecretFault> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| SecretFault::Pipe(errno.into()))?;
        // What opens a seal fits every pipe, so nobody is waited for.
        File::from(write).write_all(self.as_slice()).map_err(SecretFault::Pipe)?;
        Ok(read)
    }

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
