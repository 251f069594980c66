//! Which listening sockets a node has, and their making: bound once, then held by the keeper for the node's life.
//!
//! A socket's file belongs to its client, so that nobody else can connect to it even from outside of a sandbox.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::unix::net::{UnixDatagram, UnixListener},
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use base::layout::Layout;
use kit::ChannelKind;
use thiserror::Error;

use super::{
    keeper_client::{Keeper, KeeperError},
    ownership,
    plans::House,
};
use crate::{
    core::catalogue,
    manifest::{HealthKind, ServiceManifest},
};

/// The supervisor among its clients and servers.
pub(super) const SUPERVISOR: &str = "supervisor";
/// Where SPIFFE's clients look for the socket.
const WORKLOAD_API_VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";
/// Who serves SPIFFE's Workload API.
pub(super) const WORKLOAD_API: &str = "identity";
/// Services that the supervisor itself calls, beside policy and log: to make the identity of a user's service, to grant what
/// its manifest requires, and to open its way out.
const CALLED_BY_SUPERVISOR: [&str; 4] = ["keys", "identity", "capability_service", "network"];
/// Clients of one service. With the sockets that a service has besides, they are what one process can be started with.
pub(super) const CLIENTS_MAX: usize = sandbox::DESCRIPTORS_MAX - 32;
/// Where a service finds its sockets.
pub(super) const INSIDE: &str = kit::env::RUN_FOLDER;

#[derive(Debug, Error)]
pub(super) enum SocketError {
    #[error("cannot bind the socket {0:?}")]
    Bind(PathBuf, #[source] io::Error),
    #[error(transparent)]
    Keeper(#[from] KeeperError),
}

/// What a socket is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    Kit(ChannelKind),
    /// Datagrams of sd_notify, read by the supervisor.
    Notify,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) purpose: Purpose,
    /// Who accepts.
    pub(super) server: String,
    /// Who connects; none for the operator.
    pub(super) client: Option<String>,
    pub(super) path: PathBuf,
}

impl Socket {
    /// Under which the keeper holds it: `edge:keys:policy`, `feed:keys`, `admin:keys`.
    #[must_use]
    pub(super) fn stored_name(&self) -> String {
        let client = self.client.as_deref().unwrap_or(&self.server);
        match &self.purpose {
            Purpose::Kit(ChannelKind::Edge) => format!("edge:{}:{client}", self.server),
            Purpose::Kit(ChannelKind::Lifecycle) => format!("lifecycle:{}", self.server),
            Purpose::Kit(kind) => format!("{kind}:{client}"),
            Purpose::Notify => format!("notify:{client}"),
        }
    }

    /// How its server knows it, in `BAILIWICK_FDS`.
    #[must_use]
    pub(super) fn token(&self) -> Option<String> {
        let Purpose::Kit(kind) = self.purpose else { return None };
        match (&self.client, kind.has_client()) {
            (Some(client), true) => Some(format!("{kind}:{client}")),
            _ => Some(kind.name().to_owned()),
        }
    }

    /// Its server is told when its client comes or goes.
    #[must_use]
    pub(super) const fn of_changing_client(&self) -> bool {
        matches!(self.purpose, Purpose::Kit(ChannelKind::Edge | ChannelKind::Workload))
    }

    /// Where its client sees it, if that is a sandboxed service.
    #[must_use]
    pub(super) fn inside(&self) -> Option<String> {
        if matches!(self.purpose, Purpose::Kit(ChannelKind::Lifecycle)) {
            return None;
        }
        self.client.as_ref()?;
        let name = match &self.purpose {
            Purpose::Kit(ChannelKind::Edge) => &self.server,
            Purpose::Kit(kind) => kind.name(),
            Purpose::Notify => "notify",
        };
        Some(format!("{INSIDE}/{name}.sock"))
    }
}

/// Every socket of these manifests.
#[must_use]
pub(super) fn of_node<'a>(
    layout: &Layout,
    manifests: impl IntoIterator<Item = &'a ServiceManifest>,
) -> Vec<Socket> {
    let manifests: BTreeMap<&str, &ServiceManifest> =
        manifests.into_iter().map(|manifest| (manifest.service.name.as_str(), manifest)).collect();
    let mut sockets = Vec::new();
    let mut add = |kind: ChannelKind, server: &str, client: Option<&str>| {
        let path = match (kind, client) {
            (ChannelKind::Edge, Some(client)) => layout.edge_socket(server, client),
            (ChannelKind::Lifecycle, _) => layout.socket(kind.name(), server),
            (_, client) => layout.socket(kind.name(), client.unwrap_or(server)),
        };
        sockets.push(Socket {
            purpose: Purpose::Kit(kind),
            server: server.to_owned(),
            client: client.map(str::to_owned),
            path,
        });
    };
    add(ChannelKind::Admin, SUPERVISOR, None);
    let installed = |name: &str| manifests.contains_key(name);
    for (name, manifest) in &manifests {
        let is_program = manifest.program.is_some();
        if !is_program {
            add(ChannelKind::Lifecycle, name, Some(SUPERVISOR));
            add(ChannelKind::Admin, name, None);
            add(ChannelKind::Edge, SUPERVISOR, Some(name));
        }
        let servers: BTreeSet<&str> = manifest.dependencies.iter().map(|d| d.name.as_str()).collect();
        // A program that names the supervisor looks up services with it; the node's own have that socket anyway.
        let reaches = |server: &str| match server == SUPERVISOR {
            true => is_program,
            false => serves(&manifests, server),
        };
        for server in servers.into_iter().filter(|server| reaches(server)) {
            add(ChannelKind::Edge, server, Some(name));
        }
    }
    for (name, _) in manifests.iter().filter(|(_, manifest)| manifest.has_workload_api()) {
        if installed(WORKLOAD_API) {
            add(ChannelKind::Workload, WORKLOAD_API, Some(name));
        }
    }
    // The kit's own roads: the log and the decider have none to themselves.
    let speakers = manifests.iter().filter(|(_, manifest)| manifest.program.is_none()).map(|(name, _)| *name);
    for client in speakers.chain([SUPERVISOR]) {
        if client != catalogue::LOG && installed(catalogue::LOG) {
            add(ChannelKind::Feed, catalogue::LOG, Some(client));
        }
        let decides = client == catalogue::LOG || client == catalogue::DECIDER;
        if !decides && installed(catalogue::DECIDER) {
            add(ChannelKind::Authority, catalogue::DECIDER, Some(client));
        }
        let appends = client == catalogue::DECIDER || client == SUPERVISOR;
        if appends && installed(catalogue::LOG) {
            add(ChannelKind::Append, catalogue::LOG, Some(client));
        }
    }
    for server in CALLED_BY_SUPERVISOR.into_iter().filter(|server| installed(server)) {
        add(ChannelKind::Edge, server, Some(SUPERVISOR));
    }
    for (name, manifest) in &manifests {
        if manifest.health.kind(manifest.program.is_some()) == HealthKind::SdNotify {
            sockets.push(Socket {
                purpose: Purpose::Notify,
                server: SUPERVISOR.to_owned(),
                client: Some((*name).to_owned()),
                path: layout.socket("notify", name),
            });
        }
    }
    sockets
}

/// Where a service finds the Workload API, as SPIFFE's variable says it.
#[must_use]
pub(super) fn workload_api(sockets: &[Socket], name: &str) -> Option<(String, String)> {
    let own = |socket: &&Socket| {
        socket.purpose == Purpose::Kit(ChannelKind::Workload) && socket.client.as_deref() == Some(name)
    };
    let inside = sockets.iter().find(own)?.inside()?;
    Some((WORKLOAD_API_VARIABLE.to_owned(), format!("unix://{inside}")))
}

fn serves(manifests: &BTreeMap<&str, &ServiceManifest>, name: &str) -> bool {
    manifests.get(name).is_some_and(|manifest| manifest.program.is_none())
}

/// A service that would have more than [`CLIENTS_MAX`] clients.
#[must_use]
pub(super) fn crowded(sockets: &[Socket]) -> Option<&str> {
    let mut clients: BTreeMap<&str, usize> = BTreeMap::new();
    for socket in sockets.iter().filter(|socket| socket.of_changing_client()) {
        *clients.entry(&socket.server).or_default() += 1;
    }
    clients.into_iter().find(|(_, count)| *count > CLIENTS_MAX).map(|(server, _)| server)
}

/// Takes the socket from the keeper, or binds it for its client and gives it to the keeper.
pub(super) async fn ensure(keeper: &Keeper, house: &House, socket: &Socket) -> Result<OwnedFd, SocketError> {
    let client = socket.client.as_deref().filter(|client| *client != SUPERVISOR);
    let owner = client.and_then(|client| house.uid_of(client));
    let name = socket.stored_name();
    if let Some(fd) = keeper.fetch(&name).await? {
        return Ok(fd);
    }
    let bound = bind(socket, owner).map_err(|error| SocketError::Bind(socket.path.clone(), error))?;
    let kept = bound.try_clone().map_err(|error| SocketError::Bind(socket.path.clone(), error))?;
    keeper.store(&name, kept).await?;
    Ok(bound)
}

fn bind(socket: &Socket, owner: Option<u32>) -> io::Result<OwnedFd> {
    if let Some(folder) = socket.path.parent() {
        make_folder(folder)?;
    }
    // Left behind by a node that did not end in order; its lock is held by this one's keeper.
    match std::fs::remove_file(&socket.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let fd: OwnedFd = match socket.purpose {
        Purpose::Kit(_) => UnixListener::bind(&socket.path)?.into(),
        Purpose::Notify => UnixDatagram::bind(&socket.path)?.into(),
    };
    // The folders above are the owner's alone (0700): until this line nobody else could have come.
    std::fs::set_permissions(&socket.path, std::fs::Permissions::from_mode(0o600))?;
    if let Some(uid) = owner {
        ownership::give(&socket.path, uid)?;
    }
    Ok(fd)
}

/// A folder that is the owner's alone.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, more: &str) -> ServiceManifest {
        let text = format!(
            "version = 1\n{more}\n[service]\nname = \"{name}\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n"
        );
        crate::manifest::parse("test", &text).unwrap().manifest
    }

    fn names(manifests: &[ServiceManifest]) -> Vec<String> {
        let layout = Layout::under(Path::new("/n")).unwrap();
        let mut names: Vec<String> = of_node(&layout, manifests).iter().map(Socket::stored_name).collect();
        names.sort();
        names
    }

    const NEEDS_KEYS: &str = "[[dependencies]]\nname = \"keys\"\nversion = \">=1.0.0\"\nrequired = false\n";

    #[test]
    fn log_and_decider_get_their_roads_and_a_program_only_its_edges() {
        let manifests = [manifest("axiom", ""), manifest("policy", ""), manifest("keys", "")];
        let expected = [
            "admin:axiom",
            "admin:keys",
            "admin:policy",
            "admin:supervisor",
            "append:policy",
            "append:supervisor",
            "authority:keys",
            "authority:supervisor",
            "edge:keys:supervisor",
            "edge:supervisor:axiom",
            "edge:supervisor:keys",
            "edge:supervisor:policy",
            "feed:keys",
            "feed:policy",
            "feed:supervisor",
            "lifecycle:axiom",
            "lifecycle:keys",
            "lifecycle:policy",
        ];
        assert_eq!(names(&manifests), expected);
        let mut program = manifest("mine", NEEDS_KEYS);
        program.program = toml::from_str("image = \"/bin/true\"").ok();
        let mut with = names(&[manifest("keys", ""), program.clone()]);
        with.retain(|name| name.contains("mine"));
        assert_eq!(with, ["edge:keys:mine"]);
        assert!(!names(&[program.clone()]).iter().any(|name| name.contains("mine")), "keys is not installed");
        let discovers = "[[dependencies]]\nname = \"supervisor\"\nversion = \">=0.1.0\"\nrequired = false\n";
        let mut with = names(&[manifest("mine", &format!("{discovers}[program]\nimage = \"/bin/true\"\n"))]);
        with.retain(|name| name.contains("mine"));
        assert_eq!(with, ["edge:supervisor:mine"]);
    }

    /// covers: AX-03
    #[test]
    fn the_log_serves_those_who_need_it_and_needs_nobody() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/manifests");
        let text = |file: std::fs::DirEntry| std::fs::read_to_string(file.path()).unwrap();
        let texts: Vec<String> = std::fs::read_dir(folder).unwrap().map(|file| text(file.unwrap())).collect();
        let all: Vec<ServiceManifest> =
            texts.iter().map(|text| crate::manifest::parse("test", text).unwrap().manifest).collect();
        let names = names(&all);
        let of = |prefix: &str| -> Vec<String> {
            names.iter().filter_map(|name| Some(name.strip_prefix(prefix)?.to_owned())).collect()
        };
        let dependents = ["capability_service", "filesystem", "network", "policy", "update_manager"];
        assert_eq!(of("edge:axiom:"), dependents);
        // The supervisor has no manifest: it depends on the log by what it follows and appends.
        assert_eq!(of("append:"), ["policy", "supervisor"]);
        assert!(of("feed:").contains(&"supervisor".to_owned()));
        // Of the log's own, there is discovery alone.
        let servers: Vec<&String> = names.iter().filter(|name| name.ends_with(":axiom")).collect();
        assert_eq!(servers, ["admin:axiom", "edge:supervisor:axiom", "lifecycle:axiom"]);
    }

    #[test]
    fn a_service_has_clients_up_to_a_limit() {
        let crowd = |count: usize| {
            let programs = (0..count).map(|number| {
                let mut program = manifest(&format!("p{number}"), NEEDS_KEYS);
                program.program = toml::from_str("image = \"/bin/true\"").ok();
                program
            });
            let all: Vec<_> = programs.chain([manifest("keys", "")]).collect();
            of_node(&Layout::under(Path::new("/n")).unwrap(), &all)
        };
        // The supervisor is one too.
        assert_eq!(crowded(&crowd(CLIENTS_MAX - 1)), None);
        assert_eq!(crowded(&crowd(CLIENTS_MAX)), Some("keys"));
    }

    #[test]
    fn an_sd_notify_program_gets_a_socket_of_its_own() {
        let mut program = manifest("mine", "[health]\nkind = \"sd_notify\"\n");
        program.program = toml::from_str("image = \"/bin/true\"").ok();
        let layout = Layout::under(Path::new("/n")).unwrap();
        let sockets = of_node(&layout, [&program]);
        let notify = sockets.iter().find(|socket| socket.purpose == Purpose::Notify).unwrap();
        assert_eq!(notify.inside().as_deref(), Some("/run/bailiwick/notify.sock"));
        assert_eq!((notify.token(), notify.stored_name().as_str()), (None, "notify:mine"));
    }

    #[test]
    fn the_workload_api_is_for_who_asks_for_it() {
        let with = manifest("web", "[identity]\nworkload_api = true\n");
        let layout = Layout::under(Path::new("/n")).unwrap();
        let sockets = of_node(&layout, &[manifest("identity", ""), with.clone(), manifest("plain", "")]);
        let own: Vec<&Socket> =
            sockets.iter().filter(|socket| socket.purpose == Purpose::Kit(ChannelKind::Workload)).collect();
        let [own] = own[..] else { panic!("{own:?}") };
        assert_eq!((own.stored_name().as_str(), own.server.as_str()), ("workload:web", "identity"));
        assert_eq!((own.token().as_deref(), own.of_changing_client()), (Some("workload:web"), true));
        let variable =
            ("SPIFFE_ENDPOINT_SOCKET".to_owned(), "unix:///run/bailiwick/workload.sock".to_owned());
        assert_eq!(workload_api(&sockets, "web"), Some(variable));
        assert_eq!(workload_api(&sockets, "plain"), None);
        assert!(!names(&[with]).iter().any(|name| name.starts_with("workload")), "nobody serves it");
    }

    #[test]
    fn tokens_name_the_client_and_paths_inside_the_server() {
        let layout = Layout::under(Path::new("/n")).unwrap();
        let manifests = [
            manifest("axiom", ""),
            manifest("policy", "[[dependencies]]\nname = \"axiom\"\nversion = \"*\"\nrequired = true\n"),
        ];
        let sockets = of_node(&layout, &manifests);
        let find = |name: &str| sockets.iter().find(|socket| socket.stored_name() == name).unwrap();
        let seen = |name: &str| (find(name).token(), find(name).inside());
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(seen("edge:axiom:policy"), (text("edge:policy"), text("/run/bailiwick/axiom.sock")));
        assert_eq!(seen("append:policy"), (text("append:policy"), text("/run/bailiwick/append.sock")));
        assert_eq!(seen("admin:axiom"), (text("admin"), None));
        assert_eq!(seen("lifecycle:axiom"), (text("lifecycle"), None));
        assert_eq!(find("edge:axiom:policy").path, Path::new("/n/run/edge/axiom/policy.sock"));
    }

    #[tokio::test]
    async fn a_bound_socket_is_its_clients_alone() {
        let folder = tempfile::tempdir().unwrap();
        let socket = Socket {
            purpose: Purpose::Kit(ChannelKind::Admin),
            server: "keys".to_owned(),
            client: None,
            path: folder.path().join("admin/keys.sock"),
        };
        std::fs::create_dir(folder.path().join("admin")).unwrap();
        std::fs::write(&socket.path, "left behind").unwrap();
        let _held = bind(&socket, None).unwrap();
        let mode = std::fs::metadata(&socket.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::os::unix::net::UnixStream::connect(&socket.path).unwrap();
    }
}
