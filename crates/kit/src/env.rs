//! What a service inherits: its listening sockets, and where the sockets of others stand.

use std::{
    io,
    os::{
        fd::{OwnedFd, RawFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
    sync::Arc,
};

use base::limits::NAME_BYTES_MAX;
use thiserror::Error;

use crate::{channel::ChannelKind, signing::HandedKey};

/// Listening sockets of one service: an edge, a feed, an authority socket for each of at most 80 clients.
pub const DESCRIPTORS_MAX: usize = 256;
/// Where the sockets of other servers stand inside a service's namespace.
pub const RUN_FOLDER: &str = "/run/bailiwick";
/// Where a service keeps its own files.
pub const STATE_FOLDER: &str = "/state";
/// Where a program finds its secrets, and the variable that says so.
pub const CREDENTIALS_FOLDER: &str = "/run/bailiwick/credentials";
pub const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
/// Who a program is, where it may call others.
pub const IDENTITY_VARIABLE: &str = "BAILIWICK_IDENTITY";
/// Where a service finds what of the configuration is its own, if there is any.
pub const CONFIG_FOLDER: &str = "/config";

#[derive(Debug, Error)]
pub enum EnvError {
    #[error("BAILIWICK_FDS is not set: a service is started by the supervisor, there is no standalone mode")]
    Missing,
    #[error("BAILIWICK_FDS has a token {0:?} that is not `kind=fd` or `kind:client=fd`")]
    Token(String),
    #[error("BAILIWICK_FDS names more than {DESCRIPTORS_MAX} descriptors")]
    TooMany,
    #[error("BAILIWICK_FDS names {0} twice")]
    Twice(String),
    #[error("BAILIWICK_OWNER_UID is {0:?}, not a user id")]
    OwnerUid(String),
    #[error("cannot adopt descriptor {raw} of {name}")]
    Adopt { raw: RawFd, name: String, source: io::Error },
    #[error("descriptor of {0} is not a listening unix socket")]
    NotListening(String),
    #[error("cannot read the signing key")]
    SigningKey(#[source] io::Error),
    #[error("a signing key of 32 bytes was announced, {0} were in the pipe")]
    SigningKeyBytes(usize),
}

/// A token of `BAILIWICK_FDS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub kind: ChannelKind,
    pub client: Arc<str>,
    pub raw: RawFd,
}

/// A socket to accept on, and who stands behind it.
#[derive(Debug)]
pub struct Listener {
    pub kind: ChannelKind,
    pub client: Arc<str>,
    pub socket: UnixListener,
}

impl Listener {
    #[must_use]
    pub fn new(kind: ChannelKind, client: &str, socket: UnixListener) -> Self {
        Self { kind, client: client.into(), socket }
    }
}

/// Everything that a service is given at start.
#[derive(Debug)]
pub struct Inherited {
    pub listeners: Vec<Listener>,
    /// The socket to the key boundary, if this service has one.
    pub boundary: Option<OwnedFd>,
    /// Where it is told of clients that come and go.
    pub clients: Option<OwnedFd>,
    /// The key of a service that signs by itself.
    pub signing: Option<HandedKey>,
    pub run_folder: PathBuf,
    pub state_folder: PathBuf,
    /// The operator as this process' user namespace sees them; root is always let in.
    pub owner_uid: Option<u32>,
}

impl Inherited {
    /// Reads the environment and adopts the descriptors; to be called once, before anything else is opened.
    pub fn from_env() -> Result<Self, EnvError> {
        let text = std::env::var("BAILIWICK_FDS").map_err(|_| EnvError::Missing)?;
        let mut inherited = Self::empty();
        if let Ok(folder) = std::env::var("BAILIWICK_RUN") {
            inherited.run_folder = folder.into();
        }
        if let Ok(folder) = std::env::var("BAILIWICK_STATE") {
            inherited.state_folder = folder.into();
        }
        if let Ok(uid) = std::env::var("BAILIWICK_OWNER_UID") {
            inherited.owner_uid = Some(uid.parse().map_err(|_| EnvError::OwnerUid(uid))?);
        }
        for descriptor in parse_descriptors(&text)? {
            inherited.adopt(descriptor)?;
        }
        Ok(inherited)
    }

    /// Nothing inherited; for tests, which fill in what they need.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            listeners: Vec::new(),
            boundary: None,
            clients: None,
            signing: None,
            run_folder: RUN_FOLDER.into(),
            state_folder: STATE_FOLDER.into(),
            owner_uid: None,
        }
    }

    fn adopt(&mut self, descriptor: Descriptor) -> Result<(), EnvError> {
        let Descriptor { kind, client, raw } = descriptor;
        let name = format!("{kind}:{client}");
        let fd = sandbox::inherited::adopt_descriptor(raw).map_err(|source| EnvError::Adopt {
            raw,
            name,
            source,
        })?;
        self.take(kind, client, fd)
    }

    fn take(&mut self, kind: ChannelKind, client: Arc<str>, fd: OwnedFd) -> Result<(), EnvError> {
        match kind {
            ChannelKind::Boundary => self.boundary = Some(fd),
            ChannelKind::Clients => self.clients = Some(fd),
            ChannelKind::Signing => self.signing = Some(HandedKey::read(fd)?),
            _ => {
                let socket =
                    listening(fd).ok_or_else(|| EnvError::NotListening(format!("{kind}:{client}")))?;
                self.listeners.push(Listener { kind, client, socket });
            }
        }
        Ok(())
    }
}

/// Nothing else can be accepted on.
pub(crate) fn listening(fd: OwnedFd) -> Option<UnixListener> {
    let is_unix = rustix::net::getsockname(&fd)
        .is_ok_and(|address| address.address_family() == rustix::net::AddressFamily::UNIX);
    let listens = rustix::net::sockopt::socket_acceptconn(&fd).unwrap_or(false);
    (is_unix && listens).then(|| UnixListener::from(fd))
}

/// `lifecycle=3,edge:keys=4,feed:keys=5,admin=8`.
pub fn parse_descriptors(text: &str) -> Result<Vec<Descriptor>, EnvError> {
    let mut all: Vec<Descriptor> = Vec::new();
    for token in text.split(',').filter(|token| !token.is_empty()) {
        if all.len() == DESCRIPTORS_MAX {
            return Err(EnvError::TooMany);
        }
        let descriptor =
            parse_token(token).ok_or_else(|| EnvError::Token(token.chars().take(80).collect()))?;
        if all.iter().any(|known| {
            known.raw == descriptor.raw
                || (known.kind == descriptor.kind && known.client == descriptor.client)
        }) {
            return Err(EnvError::Twice(token.to_owned()));
        }
        all.push(descriptor);
    }
    Ok(all)
}

fn parse_token(token: &str) -> Option<Descriptor> {
    let (name, raw) = token.split_once('=')?;
    let (kind, client) = match name.split_once(':') {
        Some((kind, client)) => (kind.parse::<ChannelKind>().ok()?, Some(client)),
        None => (name.parse::<ChannelKind>().ok()?, None),
    };
    let client = match (kind, client) {
        (kind, Some(client)) if kind.has_client() && is_name(client) => client,
        (ChannelKind::Lifecycle, None) => "supervisor",
        (kind, None) if !kind.has_client() => kind.name(),
        _ => return None,
    };
    let raw: RawFd = raw.parse().ok()?;
    (raw >= 3).then(|| Descriptor { kind, client: client.into(), raw })
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= NAME_BYTES_MAX
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(ChannelKind, String, RawFd)> {
        parse_descriptors(text).unwrap().into_iter().map(|d| (d.kind, d.client.to_string(), d.raw)).collect()
    }

    #[test]
    fn tokens_name_kind_and_client() {
        assert_eq!(
            names("lifecycle=3,edge:keys=4,append:policy=7,admin=8,boundary=9,clients=10,signing=11"),
            [
                (ChannelKind::Lifecycle, "supervisor".to_owned(), 3),
                (ChannelKind::Edge, "keys".to_owned(), 4),
                (ChannelKind::Append, "policy".to_owned(), 7),
                (ChannelKind::Admin, "admin".to_owned(), 8),
                (ChannelKind::Boundary, "boundary".to_owned(), 9),
                (ChannelKind::Clients, "clients".to_owned(), 10),
                (ChannelKind::Signing, "signing".to_owned(), 11),
            ]
        );
        assert_eq!(names(""), []);
    }

    #[test]
    fn a_wrong_token_is_refused_and_named() {
        for text in [
            "edge=4",
            "admin:me=4",
            "edge:=4",
            "edge:a/b=4",
            "edge:keys",
            "edge:keys=",
            "door=4",
            "admin=2",
            "admin=-1",
            "admin=x",
            "signing:policy=4",
        ] {
            assert!(
                matches!(parse_descriptors(text), Err(EnvError::Token(token)) if token == text),
                "{text}"
            );
        }
        for text in ["admin=4,admin=5", "admin=4,lifecycle=4"] {
            assert!(matches!(parse_descriptors(text), Err(EnvError::Twice(_))), "{text}");
        }
    }

    /// covers: SVC-24
    #[test]
    fn only_a_listening_unix_socket_is_served() {
        let folder = tempfile::tempdir().unwrap();
        let adopt = |fd: OwnedFd| Inherited::empty().take(ChannelKind::Admin, "admin".into(), fd);
        let unix = UnixListener::bind(folder.path().join("a.sock")).unwrap();
        assert!(adopt(unix.into()).is_ok());
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(matches!(adopt(tcp.into()), Err(EnvError::NotListening(name)) if name == "admin:admin"));
        let (connected, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(matches!(adopt(connected.into()), Err(EnvError::NotListening(_))));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(matches!(adopt(file.into()), Err(EnvError::NotListening(_))));
    }

    #[test]
    fn the_number_of_descriptors_is_bounded_at_the_limit() {
        let list = |count: usize| -> String { (0..count).map(|n| format!("edge:c{n}={},", n + 3)).collect() };
        assert_eq!(parse_descriptors(&list(DESCRIPTORS_MAX)).unwrap().len(), DESCRIPTORS_MAX);
        assert!(matches!(parse_descriptors(&list(DESCRIPTORS_MAX + 1)), Err(EnvError::TooMany)));
    }
}
