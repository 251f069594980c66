//! Where a node keeps things. Pure: computed from a root or from the environment, never from the disk.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Bytes of the longest socket path that the kernel takes (`sun_path` without its NUL).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    #[error("{0} is not set; give --root DIR, or set it")]
    Unset(&'static str),
    #[error("{0} must be an absolute path, not {1:?}")]
    Relative(&'static str, PathBuf),
    #[error(
        "the runtime folder {folder:?} is too long: its sockets would have paths of {bytes} bytes, the kernel takes {SOCKET_PATH_BYTES_MAX}; choose a shorter one"
    )]
    TooLong { folder: PathBuf, bytes: usize },
}

/// File of the configuration folder.
pub const IDENTITY_SETTINGS: &str = "identity.toml";
/// What of names and their servers is the operator's to say.
pub const NETWORK_SETTINGS: &str = "network.toml";

/// The folders of one node (decision 0001).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub state: PathBuf,
    pub run: PathBuf,
    pub config: PathBuf,
}

impl Layout {
    /// A whole node under one folder.
    pub fn under(root: &Path) -> Result<Self, LayoutError> {
        if !root.is_absolute() {
            return Err(LayoutError::Relative("--root", root.to_owned()));
        }
        Self { state: root.join("state"), run: root.join("run"), config: root.join("config") }.checked()
    }

    /// The usual places: the system's for root, the XDG ones for everybody else.
    pub fn usual(uid: u32, var: impl Fn(&'static str) -> Option<PathBuf>) -> Result<Self, LayoutError> {
        if uid == 0 {
            return Self {
                state: "/var/lib/bailiwick".into(),
                run: "/run/bailiwick".into(),
                config: "/etc/bailiwick".into(),
            }
            .checked();
        }
        let home = || var("HOME").ok_or(LayoutError::Unset("HOME"));
        let state = match var("XDG_STATE_HOME") {
            Some(folder) => folder,
            None => home()?.join(".local/state"),
        };
        let config = match var("XDG_CONFIG_HOME") {
            Some(folder) => folder,
            None => home()?.join(".config"),
        };
        let run = var("XDG_RUNTIME_DIR").ok_or(LayoutError::Unset("XDG_RUNTIME_DIR"))?;
        for (name, folder) in
            [("XDG_STATE_HOME", &state), ("XDG_CONFIG_HOME", &config), ("XDG_RUNTIME_DIR", &run)]
        {
            if !folder.is_absolute() {
                return Err(LayoutError::Relative(name, folder.clone()));
            }
        }
        Self { state: state.join("bailiwick"), run: run.join("bailiwick"), config: config.join("bailiwick") }
            .checked()
    }

    /// The longest socket path belongs to an edge between two services of the longest name in use.
    fn checked(self) -> Result<Self, LayoutError> {
        let longest = self.edge_socket("capability_service", "process_manager");
        match longest.as_os_str().len() {
            bytes if bytes > SOCKET_PATH_BYTES_MAX => Err(LayoutError::TooLong { folder: self.run, bytes }),
            _ => Ok(self),
        }
    }

    #[must_use]
    pub fn genesis(&self) -> PathBuf {
        self.state.join("genesis.cbor")
    }

    /// Highest acknowledged entry, outside the log's folder and in one of its own.
    #[must_use]
    pub fn head(&self) -> PathBuf {
        self.state.join("head/head")
    }

    /// The checkpoint that the log signed last when it started or stopped.
    #[must_use]
    pub fn checkpoint(&self) -> PathBuf {
        self.state.join("head/checkpoint")
    }

    /// A service's own folder.
    #[must_use]
    pub fn service_state(&self, service: &str) -> PathBuf {
        self.state.join(service)
    }

    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.state.join("axiom/log")
    }

    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.config.join("manifests")
    }

    #[must_use]
    pub fn rules(&self) -> PathBuf {
        self.config.join("rules")
    }

    /// How long SVIDs live; need not be there.
    #[must_use]
    pub fn identity_settings(&self) -> PathBuf {
        self.config.join(IDENTITY_SETTINGS)
    }

    /// The operator's; it need not be there.
    #[must_use]
    pub fn network_settings(&self) -> PathBuf {
        self.config.join(NETWORK_SETTINGS)
    }

    /// Who the node is to registries of container images; it need not be there.
    #[must_use]
    pub fn registries(&self) -> PathBuf {
        self.config.join("registries.toml")
    }

    /// What a service writes to its standard error.
    #[must_use]
    pub fn service_log(&self, service: &str) -> PathBuf {
        self.state.join("logs").join(format!("{service}.log"))
    }

    /// Held by the keeper: one node per runtime folder.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.run.join("node.lock")
    }

    #[must_use]
    pub fn edge_socket(&self, server: &str, client: &str) -> PathBuf {
        self.run.join("edge").join(server).join(format!("{client}.sock"))
    }

    /// `feed`, `authority`, `append`, `admin` and `lifecycle` sockets, one for each service.
    #[must_use]
    pub fn socket(&self, kind: &str, service: &str) -> PathBuf {
        self.run.join(kind).join(format!("{service}.sock"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_gets_the_usual_places() {
        assert_eq!(Layout::usual(0, |_| None).unwrap().state, Path::new("/var/lib/bailiwick"));
        let var = |name| match name {
            "HOME" => Some(PathBuf::from("/home/a")),
            "XDG_RUNTIME_DIR" => Some(PathBuf::from("/run/user/1")),
            _ => None,
        };
        let layout = Layout::usual(1, var).unwrap();
        assert_eq!(layout.state, Path::new("/home/a/.local/state/bailiwick"));
        assert_eq!(layout.run, Path::new("/run/user/1/bailiwick"));
        assert_eq!(Layout::usual(1, |_| None), Err(LayoutError::Unset("HOME")));
        let no_run = |name| (name == "HOME").then(|| PathBuf::from("/home/a"));
        assert_eq!(Layout::usual(1, no_run), Err(LayoutError::Unset("XDG_RUNTIME_DIR")));
    }

    #[test]
    fn a_root_is_absolute_and_short_enough_for_sockets() {
        assert!(matches!(Layout::under(Path::new("x")), Err(LayoutError::Relative(..))));
        let rest = "/run/edge/capability_service/process_manager.sock".len();
        let fits = format!("/{}", "r".repeat(SOCKET_PATH_BYTES_MAX - rest - 1));
        let layout = Layout::under(Path::new(&fits)).unwrap();
        let longest = layout.edge_socket("capability_service", "process_manager");
        assert_eq!(longest.as_os_str().len(), SOCKET_PATH_BYTES_MAX);
        assert!(matches!(
            Layout::under(Path::new(&format!("{fits}r"))),
            Err(LayoutError::TooLong { bytes: 108, .. })
        ));
    }
}
