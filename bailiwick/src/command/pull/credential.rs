//! Who this node is to a registry: a file of its configuration folder names user and password file of each.
//!
//!     ["registry.example.com:5000"]
//!     user = "node"
//!     password_file = "/etc/bailiwick/registry-password"

use std::{collections::BTreeMap, fs::File, io::Read as _, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;

/// Bytes of the file, and of a password.
const FILE_BYTES_MAX: u64 = 64 * 1024;
const PASSWORD_BYTES_MAX: u64 = 4 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    user: String,
    password_file: std::path::PathBuf,
}

/// `user:password` in base64, if there is one for this registry.
pub(super) fn of(file: &Path, registry: &str) -> Result<Option<String>> {
    if !file.exists() {
        return Ok(None);
    }
    let text = read(file, FILE_BYTES_MAX, false)?;
    let mut all: BTreeMap<String, Entry> =
        toml::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
    let Some(entry) = all.remove(registry) else { return Ok(None) };
    if entry.user.contains(':') || entry.user.chars().any(char::is_control) {
        bail!("{}: a user of a registry has no `:` and no control character", file.display());
    }
    let password = read(&entry.password_file, PASSWORD_BYTES_MAX, true)?;
    let password = password.trim_end_matches(['\r', '\n']);
    Ok(Some(BASE64_STANDARD.encode(format!("{}:{password}", entry.user))))
}

fn read(path: &Path, bytes_max: u64, secret: bool) -> Result<String> {
    let doing = || format!("reading {}", path.display());
    let file = File::open(path).with_context(doing)?;
    let data = file.metadata().with_context(doing)?;
    if secret && data.mode() & 0o077 != 0 {
        bail!("{} is a secret that others may read: `chmod 600` it first", path.display());
    }
    let mut text = String::new();
    let length = file.take(bytes_max + 1).read_to_string(&mut text).with_context(doing)?;
    if length as u64 > bytes_max {
        bail!("{} has more than {bytes_max} bytes", path.display());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_credential_is_for_its_registry_alone_and_no_secret_of_everybody() {
        let folder = tempfile::tempdir().unwrap();
        let (file, password) = (folder.path().join("registries.toml"), folder.path().join("password"));
        assert_eq!(of(&file, "a.test").unwrap(), None, "none is needed");
        let text = format!("[\"a.test:5000\"]\nuser = \"me\"\npassword_file = \"{}\"\n", password.display());
        std::fs::write(&file, text).unwrap();
        std::fs::write(&password, "secret\n").unwrap();
        std::fs::set_permissions(&password, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(of(&file, "a.test:5000").unwrap_err().to_string().contains("chmod 600"));
        std::fs::set_permissions(&password, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(of(&file, "a.test:5000").unwrap(), Some(BASE64_STANDARD.encode("me:secret")));
        assert_eq!(of(&file, "a.test").unwrap(), None);
        let long =
            |length: u64| std::fs::write(&password, "x".repeat(usize::try_from(length).unwrap())).unwrap();
        long(PASSWORD_BYTES_MAX);
        assert!(of(&file, "a.test:5000").is_ok());
        long(PASSWORD_BYTES_MAX + 1);
        assert!(of(&file, "a.test:5000").is_err());
    }
}
