//! Secrets that `network` puts into a program's requests: read at its start, handed to `network`, and nothing that the program sees.

use std::{
    io::{self, Read as _},
    path::Path,
};

use kit::way_out::{CREDENTIAL_AUTHORITY_BYTES_MAX, CREDENTIAL_BYTES_MAX, Credential};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{
    House,
    host_file::{Bounds, is_below, open_within},
};
use crate::manifest::{CredentialConfig, ProgramConfig, SYSTEM, ServiceManifest};

#[derive(Debug, Error)]
pub(in crate::shell) enum CredentialFault {
    #[error("cannot read {path} for the secret {secret}: {source}")]
    File { secret: String, path: String, source: io::Error },
    #[error("the program sees {path}, so it would have the secret {secret} itself; keep it elsewhere")]
    Seen { secret: String, path: String },
    #[error("{path} is no certificate in PEM")]
    NoPem { path: String },
    #[error("{0}")]
    Wrong(String),
}

impl CredentialFault {
    /// For the program, which knows no path of the host's.
    fn told(&self) -> String {
        match self {
            Self::File { source, .. } => {
                format!("its file, or its host's certificate, cannot be read: {source}")
            }
            Self::Seen { .. } => "its file lies where the program sees it".to_owned(),
            Self::NoPem { .. } => "its host's certificate is none in PEM".to_owned(),
            Self::Wrong(text) => text.clone(),
        }
    }
}

impl House {
    /// In the order of the manifest.
    pub(in crate::shell) fn credentials(
        &self,
        manifest: &ServiceManifest,
    ) -> Result<Vec<Credential>, CredentialFault> {
        self.each_credential(manifest).into_iter().map(|(_, read)| read).collect()
    }

    /// Of a program that runs: one that cannot be read any more is withheld, and is no reason to take away what has nothing to do
    /// with it. With what is wrong, for the log.
    pub(in crate::shell) fn credentials_again(
        &self,
        manifest: &ServiceManifest,
    ) -> (Vec<Credential>, Vec<CredentialFault>) {
        let mut faults = Vec::new();
        let mut all = Vec::new();
        for (config, read) in self.each_credential(manifest) {
            let fault = match read {
                Ok(credential) => {
                    all.push(credential);
                    continue;
                }
                Err(fault) => fault,
            };
            match Credential::withheld(config.written(""), &fault.told()) {
                Ok(credential) => all.push(credential),
                // As it was written it can be used for no place.
                Err(wrong) => faults.push(CredentialFault::Wrong(wrong)),
            }
            faults.push(fault);
        }
        (all, faults)
    }

    fn each_credential<'a>(
        &self,
        manifest: &'a ServiceManifest,
    ) -> Vec<(&'a CredentialConfig, Result<Credential, CredentialFault>)> {
        let (Some(program), Some(egress)) = (&manifest.program, &manifest.egress) else {
            return Vec::new();
        };
        let hidden = self.hidden();
        let bounds = Bounds { program, hidden: &hidden };
        egress.credentials.iter().map(|one| (one, read_one(one, bounds))).collect()
    }
}

fn read_one(one: &CredentialConfig, bounds: Bounds<'_>) -> Result<Credential, CredentialFault> {
    let read = |path: &str, bytes_max: usize| {
        read(path, bytes_max, bounds).map_err(|source| CredentialFault::File {
            secret: one.secret.clone(),
            path: path.to_owned(),
            source,
        })
    };
    if is_seen(bounds.program, &one.path) {
        return Err(CredentialFault::Seen { secret: one.secret.clone(), path: one.path.clone() });
    }
    // Of a line's end behind it.
    let value = read(&one.path, CREDENTIAL_BYTES_MAX + 1)?;
    let authority = match &one.authority {
        Some(path) => read(path, CREDENTIAL_AUTHORITY_BYTES_MAX)?,
        None => Zeroizing::default(),
    };
    let pem = std::str::from_utf8(&authority)
        .map_err(|_| CredentialFault::NoPem { path: one.authority.clone().unwrap_or_default() })?;
    Credential::new(one.written(pem), Some(value)).map_err(CredentialFault::Wrong)
}

fn read(path: &str, bytes_max: usize, bounds: Bounds<'_>) -> io::Result<Zeroizing<Vec<u8>>> {
    // It does not grow, so nothing of it is left behind.
    let mut content = Zeroizing::new(Vec::with_capacity(bytes_max.saturating_add(1)));
    let file = open_within(Path::new(path), bounds)?;
    file.take(bytes_max.saturating_add(1) as u64).read_to_end(&mut content)?;
    match content.len() > bytes_max {
        true => Err(io::Error::other(format!("it has more than {bytes_max} bytes"))),
        false => Ok(content),
    }
}

/// By its name, and by where that leads: in what is granted to the program, what every program sees, or its own secrets.
fn is_seen(program: &ProgramConfig, path: &str) -> bool {
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let granted = program.fs.iter().map(|grant| grant.path.as_str());
    let folders = program.folders.iter().map(|folder| folder.path.as_str());
    let own = program.secrets.iter().map(|secret| secret.path.as_str());
    let own = own.chain(program.env_files.iter().map(|file| file.path.as_str()));
    granted
        .chain(folders)
        .chain(own)
        .chain(SYSTEM)
        .any(|seen| is_below(Path::new(path), seen) || is_below(&real, seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_sees_is_no_secret_of_the_edge() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
        for folder in ["granted", "apart"] {
            std::fs::create_dir(path(folder)).unwrap();
            std::fs::write(path(&format!("{folder}/key")), "s3cret\n").unwrap();
        }
        std::fs::write(path("apart/other"), "other").unwrap();
        std::os::unix::fs::symlink(path("granted/key"), path("apart/link")).unwrap();
        let text = format!(
            "image = \"/x\"\nfs = [\"{}\"]\nsecrets = [{{ name = \"a\", path = \"{}\" }}]",
            path("granted"),
            path("apart/other")
        );
        let program: ProgramConfig = toml::from_str(&text).unwrap();
        assert!(!is_seen(&program, &path("apart/key")));
        for seen in ["granted/key", "apart/link", "apart/other"] {
            assert!(is_seen(&program, &path(seen)), "{seen}");
        }
        assert!(is_seen(&program, "/etc/ssl/key") && is_seen(&program, "/usr/share/key"));
        let bounds = Bounds { program: &program, hidden: &[] };
        assert_eq!(read(&path("apart/key"), 7, bounds).unwrap().as_slice(), b"s3cret\n");
        assert!(read(&path("apart/key"), 6, bounds).unwrap_err().to_string().contains("more than 6"));
    }

    #[test]
    fn of_a_program_that_runs_what_cannot_be_read_is_withheld_alone_and_tells_no_path() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("key"), "s3cret\n").unwrap();
        std::fs::write(path("lines"), "one\ntwo\n").unwrap();
        std::fs::write(path("bytes"), [0xff]).unwrap();
        let one = |name: &str, rest: &str| {
            let file = path(name);
            format!(
                "[[egress.credentials]]\nhost = \"{name}.test\"\nsecret = \"{name}\"\npath = \"{file}\"\n{rest}"
            )
        };
        let manifest = |all: &[String]| {
            let text = format!(
                "version = 1\n[service]\nname = \"web\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n[program]\n\
                 image = \"/bin/true\"\n[egress]\nallow = [\"a.test\"]\nproxy = true\n{}",
                all.concat()
            );
            crate::manifest::parse("web.toml", &text).unwrap()
        };
        let house = super::super::tests::house(root.path(), false);
        let whole = manifest(&[one("key", "")]);
        assert_eq!(house.credentials(&whole.manifest).unwrap(), house.credentials_again(&whole.manifest).0);
        let authority = format!("authority = \"{}\"\n", path("bytes"));
        let spoilt = [one("absent", ""), one("lines", ""), one("key", &authority)];
        for spoilt in &spoilt {
            let both = manifest(&[one("key", "").replace("key.test", "whole.test"), spoilt.clone()]);
            assert!(house.credentials(&both.manifest).is_err());
            let (all, faults) = house.credentials_again(&both.manifest);
            let [held, withheld] = &all[..] else { panic!("{all:?}") };
            assert!(held.value.is_some() && withheld.value.is_none());
            assert!(
                !withheld.withheld.is_empty() && !withheld.withheld.contains(root.path().to_str().unwrap())
            );
            assert_eq!(faults.len(), 1);
        }
    }
}
