use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `[program]`: an ordinary program, unchanged, run as a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramConfig {
    /// Absolute path on the host, or `blake3:` and the digest of an image of the node.
    pub image: String,
    #[serde(default)]
    pub args: Vec<String>,
    /// Nothing else is in the program's environment but what the node sets.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Left out: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// `PATH` or `PATH:rw`.
    #[serde(default)]
    pub fs: Vec<FsGrant>,
}

/// A folder or file of the host that a program sees at the same path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsGrant {
    pub path: String,
    pub writable: bool,
}

impl FromStr for FsGrant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, writable) = match text.strip_suffix(":rw") {
            Some(path) => (path, true),
            None => (text.strip_suffix(":ro").unwrap_or(text), false),
        };
        let climbs = path.split('/').any(|part| part == ".." || part == ".");
        if !path.starts_with('/') || climbs || path.contains('\0') {
            return Err(format!(
                "a grant is an absolute path without `.` and `..`, with `:rw` if it may be written, not {text:?}"
            ));
        }
        Ok(Self { path: path.to_owned(), writable })
    }
}

impl fmt::Display for FsGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.path, if self.writable { ":rw" } else { "" })
    }
}

impl Serialize for FsGrant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FsGrant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// `[sandbox]`: the few things about a sandbox that a manifest can change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxSwitches {
    pub network: NetworkSwitch,
    /// Size of the private `/tmp`, mebibytes; 0 for none.
    pub tmp_mb: u32,
    /// Processes and threads.
    pub processes_max: u32,
    pub open_files_max: u32,
    /// Path-opening and connecting calls that were refused are recorded with path and address; costs speed.
    pub watch_refusals: bool,
}

impl Default for SandboxSwitches {
    fn default() -> Self {
        Self {
            network: NetworkSwitch::Own,
            tmp_mb: 64,
            processes_max: 512,
            open_files_max: 4096,
            watch_refusals: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkSwitch {
    /// A network namespace with nothing in it.
    Own,
    /// The host's; for a `[program]` of type `User` only.
    Host,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_absolute_and_read_only_unless_it_says_so() {
        let grant = |text: &str| text.parse::<FsGrant>();
        assert_eq!(grant("/a b"), Ok(FsGrant { path: "/a b".to_owned(), writable: false }));
        assert_eq!(grant("/a:rw"), Ok(FsGrant { path: "/a".to_owned(), writable: true }));
        assert_eq!(grant("/a:ro").unwrap().to_string(), "/a");
        for wrong in ["a", "./a:rw", "/a/../b", "/./a", "", ":rw", "/a\0b"] {
            assert!(grant(wrong).is_err(), "{wrong:?}");
        }
    }
}
