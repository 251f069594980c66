//! Secrets of a program: read at its start, handed over in memory, never in an environment, an argument or a message.

use std::{
    io::{self, Read as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use sandbox::{SEALED_BYTES_MAX, SealedFile, keeper_protocol};
use thiserror::Error;
use zeroize::Zeroizing;

use super::host_file::{Bounds, open_within};
use crate::manifest::ProgramConfig;

#[derive(Debug, Error)]
pub(in crate::shell) enum SecretFault {
    #[error("cannot read the secret {name} in {}: {source}", path.display())]
    File { name: String, path: PathBuf, source: io::Error },
    #[error("the secrets have more than {SEALED_BYTES_MAX} bytes with {name}")]
    TooMany { name: String },
    #[error("cannot hand the secrets over: {0}")]
    Memory(io::Error),
}

/// One after the other, with what tells them apart. None where there are none.
pub(super) fn gather(
    program: &ProgramConfig,
    hidden: &[String],
) -> Result<Option<(OwnedFd, Vec<SealedFile>)>, SecretFault> {
    if program.secrets.is_empty() {
        return Ok(None);
    }
    let mut contents: Zeroizing<Vec<u8>> = Zeroizing::default();
    let mut files = Vec::with_capacity(program.secrets.len());
    for secret in &program.secrets {
        let failed = |source| SecretFault::File {
            name: secret.name.clone(),
            path: PathBuf::from(&secret.path),
            source,
        };
        let room = SEALED_BYTES_MAX.saturating_sub(contents.len() as u64);
        let bounds = Bounds { program, hidden };
        let file = open_within(Path::new(&secret.path), bounds).map_err(failed)?;
        let length = file.take(room + 1).read_to_end(&mut contents).map_err(failed)?;
        if length as u64 > room {
            return Err(SecretFault::TooMany { name: secret.name.clone() });
        }
        files.push(SealedFile { name: secret.name.clone(), size_bytes: length as u64 });
    }
    let memory = keeper_protocol::sealed(&contents).map_err(SecretFault::Memory)?;
    Ok(Some((memory, files)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::SecretConfig;

    fn program(secrets: &[(&str, &Path)]) -> ProgramConfig {
        let mut program: ProgramConfig = toml::from_str("image = \"/x\"").unwrap();
        let secret = |(name, path): &(&str, &Path)| SecretConfig {
            name: (*name).to_owned(),
            path: path.to_str().unwrap().to_owned(),
        };
        program.secrets = secrets.iter().map(secret).collect();
        program
    }

    #[test]
    fn secrets_have_a_size_together_and_a_missing_one_is_named() {
        let root = tempfile::tempdir().unwrap();
        let (first, second) = (root.path().join("first"), root.path().join("second"));
        let bytes = usize::try_from(SEALED_BYTES_MAX).unwrap();
        std::fs::write(&first, vec![b'x'; bytes - 1]).unwrap();
        std::fs::write(&second, "y").unwrap();
        let both = program(&[("a", &first), ("b", &second)]);
        let (_, files) = gather(&both, &[]).unwrap().unwrap();
        assert_eq!(files[1], SealedFile { name: "b".to_owned(), size_bytes: 1 });
        std::fs::write(&second, "yz").unwrap();
        assert!(matches!(gather(&both, &[]), Err(SecretFault::TooMany { name }) if name == "b"));
        let absent = program(&[("c", &root.path().join("absent"))]);
        assert!(gather(&absent, &[]).unwrap_err().to_string().contains("absent"));
        assert!(gather(&program(&[]), &[]).unwrap().is_none());
    }
}
