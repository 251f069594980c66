use std::{collections::BTreeMap, fmt, str::FromStr};

use kit::images::Reference;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ProgramImage, limits::MODE_MAX};

/// What every program sees of the host, read-only: the system's programs and libraries, and of `/etc` what the C
/// library reads. Absent ones are left out.
pub const SYSTEM: [&str; 18] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/ssl",
];
/// `[program]`: an ordinary program, unchanged, run as a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramConfig {
    /// Absolute path on the host, `blake3:` and the digest of a file of the node, or a container image: its name, `sha256:` and
    /// its id, or `NAME@sha256:ID`. Of a container image the node keeps the id when this is applied.
    pub image: String,
    /// In the place of a container image's entry point and command; `args` follow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Of a container image: left out, its command's.
    #[serde(default)]
    pub args: Vec<String>,
    /// Nothing else is in the program's environment but what the node sets.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Left out: `/`, or the container image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// `PATH` or `PATH:rw`.
    #[serde(default)]
    pub fs: Vec<FsGrant>,
    /// Host user that it is: `NAME`, `UID`, `NAME:GROUP`. Left out: one of its own, which owns nothing on the host. A
    /// node that does not run as root can be nobody but its owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// More host groups, by name or number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Linux capabilities that it keeps, such as `net_bind_service`. Then no user namespace stands between it and the
    /// host: its `root` is the host's, with these rights alone. Needs a node that runs as root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub privileges: Vec<String>,
    /// Octal. Left out: the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub umask: Option<Octal>,
    #[serde(default, skip_serializing_if = "Runs::is_foreground")]
    pub runs: Runs,
    /// Where a program that forks writes the number of its daemon, as seen inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_file: Option<String>,
    /// Run one after the other before it, in its sandbox.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<CommandConfig>,
    /// Run one after the other once it is ready; one that fails, unless it may, ends the service as failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<CommandConfig>,
    /// Told to end by this command; what is still there afterwards gets the signal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Told to end by this signal.
    #[serde(default, skip_serializing_if = "ControlSignal::is_term")]
    pub stop_signal: ControlSignal,
    /// What `service reload` runs in its sandbox.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reload: Vec<String>,
    /// What `service reload` sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload_signal: Option<ControlSignal>,
    /// Files of the host with more variables, read at each start; those of `env` win.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_files: Vec<EnvFile>,
    /// Files of the host that it finds, at `$CREDENTIALS_DIRECTORY/NAME`, as files in memory of its own; read at each start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretConfig>,
    /// Made before its start if they are not there, and its own: below `/run` private and gone at its end, below
    /// `/var/lib`, `/var/log` and `/var/cache` the host's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<FolderConfig>,
}

/// Which of a plan's commands is which. In the plan they stand in this order: `before`, `stop`, `reload`, `after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandRole {
    Before(usize),
    Stop,
    Reload,
    After(usize),
}

impl ProgramConfig {
    /// Each with its role, in the order of the plan.
    #[must_use]
    pub fn commands(&self) -> Vec<(CommandRole, &[String], bool)> {
        let before = self.before.iter().enumerate();
        let before = before.map(|(n, one)| (CommandRole::Before(n), one.command.as_slice(), one.may_fail));
        let others = [(CommandRole::Stop, &self.stop), (CommandRole::Reload, &self.reload)];
        let others = others.into_iter().filter(|(_, command)| !command.is_empty());
        let others = others.map(|(role, command)| (role, command.as_slice(), true));
        let after = self.after.iter().enumerate();
        let after = after.map(|(n, one)| (CommandRole::After(n), one.command.as_slice(), one.may_fail));
        before.chain(others).chain(after).collect()
    }

    /// The container image that is its root.
    #[must_use]
    pub fn container(&self) -> Option<Reference> {
        ProgramImage::parse(&self.image).ok().and_then(ProgramImage::container)
    }

    /// Its place in the plan.
    #[must_use]
    pub fn place(&self, role: CommandRole) -> Option<u8> {
        let place = self.commands().iter().position(|(other, ..)| *other == role)?;
        u8::try_from(place).ok()
    }

    /// What stands at a place of the plan.
    #[must_use]
    pub fn role(&self, place: u16) -> Option<CommandRole> {
        self.commands().get(usize::from(place)).map(|(role, ..)| *role)
    }

    /// It is there later than its launch.
    #[must_use]
    pub fn settles_later(&self) -> bool {
        self.runs == Runs::Forks || !self.before.is_empty()
    }

    #[must_use]
    pub fn can_reload(&self) -> bool {
        !self.reload.is_empty() || self.reload_signal.is_some()
    }
}

/// How a program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runs {
    /// The started process is the service.
    #[default]
    Foreground,
    /// The started process ends with 0 and leaves a daemon, which is the service.
    Forks,
    /// It ends by itself; 0 is done.
    Once,
}

impl Runs {
    #[must_use]
    pub fn is_foreground(&self) -> bool {
        *self == Self::Foreground
    }
}

/// A command with its arguments; no shell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandConfig {
    pub command: Vec<String>,
    /// It goes on, however this one ends.
    #[serde(default)]
    pub may_fail: bool,
}

/// Signals by which a program is told something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlSignal {
    #[default]
    Term,
    Quit,
    Int,
    Hup,
    Usr1,
    Usr2,
    Winch,
    Kill,
}

impl ControlSignal {
    #[must_use]
    pub fn is_term(&self) -> bool {
        *self == Self::Term
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvFile {
    pub path: String,
    /// Absent it is nothing.
    #[serde(default)]
    pub optional: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretConfig {
    pub name: String,
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderConfig {
    pub path: String,
    /// Left out: 0755.
    #[serde(default)]
    pub mode: Octal,
}

/// Permission bits, as `chmod` writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Octal(pub u32);

impl Default for Octal {
    fn default() -> Self {
        Self(0o755)
    }
}

impl Serialize for Octal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:04o}", self.0))
    }
}

impl<'de> Deserialize<'de> for Octal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let value = u32::from_str_radix(&text, 8).ok().filter(|value| *value <= MODE_MAX);
        value.map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!("permission bits are octal text such as \"0750\", not {text:?}"))
        })
    }
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
        // A name may end like a switch.
        let is_like_one = self.path.ends_with(":rw") || self.path.ends_with(":ro");
        let switch = if self.writable {
            ":rw"
        } else if is_like_one {
            ":ro"
        } else {
            ""
        };
        write!(f, "{}{switch}", self.path)
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
        let named = FsGrant { path: "/a:rw".to_owned(), writable: false };
        assert_eq!(grant(&named.to_string()), Ok(named));
        assert_eq!(grant("/a:ro").unwrap().to_string(), "/a");
        for wrong in ["a", "./a:rw", "/a/../b", "/./a", "", ":rw", "/a\0b"] {
            assert!(grant(wrong).is_err(), "{wrong:?}");
        }
    }
}
