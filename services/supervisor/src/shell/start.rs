//! From the command line to the first step: the keeper, the manifests, the sockets, and whether anything runs already.

use std::{
    os::{fd::OwnedFd, unix::net::UnixListener},
    sync::Arc,
};

use chain::payload::service::Genesis;
use kit::{Settings, authority::Authority, env::Inherited, env::Listener};
use sandbox::Features;
use thiserror::Error;
use tokio::sync::mpsc;

use super::{
    apply::{Applier, ReadPlace},
    arguments::Arguments,
    clients,
    contract::{NodeFacts, SupervisorService},
    execute::Executions,
    history::History,
    idle,
    image_holds::ImageHolds,
    inputs::Inbox,
    keeper_client::{Keeper, KeeperError, Notice},
    knowledge::{GenesisFault, Knowledge, read_genesis},
    launches,
    listeners::Listeners,
    logs,
    memory::{self, Remembered, UserService},
    plans::{House, Image},
    records,
    registry::Registry,
    run::{End, Shell},
    sockets::{self, Purpose, SUPERVISOR, SocketError},
    takeover,
    timers::Alarm,
    turns::Turns,
};
use crate::{
    core::{
        catalogue,
        graph::GraphError,
        supervisor::{ServiceSetup, Supervisor},
    },
    manifest::{self, LoadedManifest},
    signing,
};

#[derive(Debug, Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    #[error(transparent)]
    Genesis(#[from] GenesisFault),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("the shipped manifests are not sound: {0}")]
    Graph(#[from] GraphError),
    #[error("the shipped manifest of {0} has no identity in genesis")]
    NoIdentity(String),
    #[error("the kernel gives no random numbers")]
    NoRandom,
    #[error("the running program cannot be opened or hashed: {0}")]
    Image(std::io::Error),
    #[error("cannot make the channel by which this contract hears of its clients: {0}")]
    Clients(std::io::Error),
}

/// Runs the node until it ends.
pub(super) async fn run(
    arguments: Arguments,
    features: Features,
    channel: OwnedFd,
    read_place: ReadPlace,
) -> Result<End, StartError> {
    let (notice_sender, notices) = mpsc::unbounded_channel();
    let nonce = kit::authority::random_16().map_err(|_| StartError::NoRandom)?;
    let [a, b, c, d, e, f, g, h, ..] = nonce;
    let greeting = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let keeper = Keeper::connect(channel, greeting, notice_sender).await?;
    let result = with_keeper(arguments, features, keeper.clone(), nonce, notices, read_place).await;
    // A supervisor that cannot begin would only be started again, to fail again.
    if let Err(error) = keeper.shutdown().await {
        tracing::error!(%error, "the keeper does not end");
    }
    result
}

async fn with_keeper(
    arguments: Arguments,
    features: Features,
    keeper: Keeper,
    nonce: [u8; 16],
    notices: mpsc::UnboundedReceiver<Notice>,
    read_place: ReadPlace,
) -> Result<End, StartError> {
    let facts = facts(&arguments, &features);
    let image = tokio::task::spawn_blocking(Image::running).await;
    let image = image.map_err(|error| StartError::Image(error.into()))?.map_err(StartError::Image)?;
    let house = Arc::new(House {
        layout: arguments.layout.clone(),
        features,
        image,
        allow_break: arguments.allow_break.clone(),
        own_uid: rustix::process::getuid().as_raw(),
    });
    if let Some(folder) = house.layout.service_log(SUPERVISOR).parent() {
        logs::keep_within_bounds(folder.to_owned());
    }
    let genesis = read_genesis(&house.layout.genesis())?;
    let knowledge = Knowledge::of(&genesis)?;
    seal_plain_keys(&house, genesis).await;
    let remembered: Option<Remembered> = kept(&keeper, memory::NAME).await?;
    // Without the machine's memory everything is started anew, these from the folder of manifests.
    let users: Option<Vec<UserService>> = match remembered {
        Some(_) => kept(&keeper, memory::USERS_NAME).await?,
        None => None,
    };
    let users = memory::setups(&users.unwrap_or_default(), house.image.hash);
    let mut setups = shipped(&house, &knowledge, &arguments.without)?;
    setups.extend(users);
    let registry = Registry::new(&house.layout, setups.iter().map(|setup| Arc::clone(&setup.manifest)));
    let mut held = Vec::new();
    for socket in registry.sockets() {
        let fd = sockets::ensure(&keeper, &house, &socket).await?;
        held.push((socket, fd));
    }
    let listeners = Listeners::default();
    for setup in &setups {
        // Held by the keeper: taken up, not bound.
        if let Err(error) = listeners.open(&keeper, &house, &setup.manifest.manifest).await {
            tracing::error!(%error, "a socket of a service cannot be taken up");
        }
    }
    let machine = Supervisor::new(setups, nonce)?;

    let (inputs, received) = mpsc::unbounded_channel();
    let inbox = Inbox::new(inputs.clone());
    let authority =
        Authority::at(house.layout.socket("authority", SUPERVISOR), SUPERVISOR, knowledge.feed().clone());
    let applier = Applier {
        house: Arc::clone(&house),
        keeper: keeper.clone(),
        registry,
        listeners,
        knowledge,
        inbox,
        changing: Arc::default(),
        turns: Turns::default(),
        inputs: inputs.clone(),
        history: History::new(&house.layout),
        authority: authority.clone(),
        executions: Executions::default(),
        image_holds: ImageHolds::default(),
        read_place,
    };
    let append = house.layout.socket("append", SUPERVISOR);
    let records = records::start(append, applier.knowledge.own, inputs.clone());
    let uses = arguments.idle_stop.map(|limit| {
        let (told, uses) = mpsc::unbounded_channel();
        idle::watch(limit, uses, applier.inbox.clone(), inputs.clone());
        told
    });
    let folder = house.layout.service_state(SUPERVISOR);
    applier.knowledge.follow(house.layout.socket("feed", SUPERVISOR), &folder, uses);
    let mut shell = Shell::new(applier, authority, records, inputs.clone(), arguments.boot_began_boottime_ns);
    match Alarm::new() {
        Ok(alarm) => shell.alarm = Some(alarm),
        Err(error) => tracing::error!(%error, "no service is started by time"),
    }
    if let Some(remembered) = &remembered {
        shell.fd_store = remembered.fd_store.clone();
        shell.timers.keep(remembered.timers.clone());
        shell.wall = remembered.wall;
    }
    let first = takeover::first_event(&mut shell, &keeper, remembered).await?;
    let mut own = Vec::new();
    for (socket, fd) in held {
        match (&socket.purpose, &socket.client) {
            (Purpose::Notify, Some(client)) => launches::listen(&mut shell, client, fd),
            (Purpose::Kit(kind), client) if socket.server == SUPERVISOR => {
                own.push(Listener::new(*kind, client.as_deref().unwrap_or("admin"), UnixListener::from(fd)));
            }
            _ => {}
        }
    }
    // Its own clients come and go as those of other services do.
    let (ours, theirs) = clients::pair().map_err(StartError::Clients)?;
    keeper.store(&clients::stored_name(SUPERVISOR), ours).await?;
    serve(&shell, facts, own, theirs);
    let end = shell.run(machine, first, received, notices).await;
    shell.applier.listeners.remove_files();
    if !end.survivors.is_empty() {
        tracing::error!(survivors = end.survivors.join(" "), "not even SIGKILL ended these");
    }
    Ok(end)
}

/// For a node of an earlier build, whose signing keys lie in the clear.
async fn seal_plain_keys(house: &Arc<House>, genesis: Genesis) {
    let house = Arc::clone(house);
    let sealed = tokio::task::spawn_blocking(move || signing::seal_plain_keys(&house.layout, &genesis)).await;
    for fault in sealed.unwrap_or_default() {
        tracing::error!(error = %fault, "a signing key lies in the clear and cannot be sealed");
    }
}

/// The supervisor's own contract; it answers from the first moment on, also while nothing else runs.
fn serve(shell: &Shell, facts: NodeFacts, listeners: Vec<Listener>, clients: OwnedFd) {
    let service = Arc::new(SupervisorService {
        applier: shell.applier.clone(),
        facts,
        progress: Arc::clone(&shell.progress),
    });
    let mut inherited = Inherited::empty();
    inherited.run_folder.clone_from(&shell.applier.house.layout.run);
    inherited.owner_uid = Some(shell.applier.house.own_uid);
    inherited.listeners = listeners;
    inherited.clients = Some(clients);
    let settings = Settings::of(&inherited);
    tokio::spawn(async move {
        if let Err(error) = kit::run_made(service, inherited, settings).await {
            tracing::error!(%error, "the supervisor's contract is not served any more");
        }
    });
}

/// Manifests of this build, with the identities that genesis made.
fn shipped(
    house: &House,
    knowledge: &Knowledge,
    without: &[String],
) -> Result<Vec<ServiceSetup>, StartError> {
    let loading = manifest::load(manifest::shipped::ALL.map(|(file, text)| (file, text)));
    for error in &loading.errors {
        tracing::error!(%error, "a shipped manifest is refused");
    }
    loading
        .manifests
        .into_iter()
        .filter(|loaded| !without.iter().any(|name| name == loaded.name()))
        .map(|mut loaded| {
            loaded.manifest = loaded.manifest.with_running_image(house.image.hash);
            let name = loaded.name().to_owned();
            let identity = knowledge.service(&name).ok_or(StartError::NoIdentity(name))?;
            let capabilities = knowledge.capabilities(&identity);
            Ok(ServiceSetup { manifest: Arc::new(loaded), identity, capabilities })
        })
        .collect()
}

/// What the supervisor before left with the keeper; what cannot be read counts as nothing, and is said.
async fn kept<T: memory::Parts>(keeper: &Keeper, name: &str) -> Result<Option<T>, KeeperError> {
    let Some(fd) = keeper.fetch(name).await? else { return Ok(None) };
    match memory::read(fd) {
        Ok(kept) => Ok(Some(kept)),
        Err(error) => {
            tracing::error!(%error, name, "what the supervisor before knew cannot be read; services are started anew");
            Ok(None)
        }
    }
}

/// The first that refuses `connect` and `bind` of TCP.
const LANDLOCK_TCP_ABI: u32 = 4;

/// What this host cannot give, and what that means.
fn missing(features: &Features) -> Vec<String> {
    let mut missing = Vec::new();
    let mut lacks = |absent: bool, what: &str| {
        if absent {
            missing.push(what.to_owned());
        }
    };
    lacks(!features.user_namespaces, "user namespaces: not usable here");
    lacks(!features.privileged, "host user ids of their own for services: needs root");
    lacks(features.landlock_abi == 0, "landlock: not in this kernel; mount namespaces alone hold files");
    lacks(!features.seccomp_filter, "seccomp: not in this kernel");
    lacks(
        !features.seccomp_notify,
        "seccomp notification: refused paths and addresses cannot be named, and programs get no way out (`run --egress`)",
    );
    lacks(
        features.landlock_abi < LANDLOCK_TCP_ABI,
        "landlock abi 4 (linux 6.7): programs get no way out (`run --egress`), whose connects nothing would hold beside the \
         filter",
    );
    lacks(
        features.lacks_datagrams,
        "veth (CONFIG_VETH): programs with a place for datagrams (`run --egress ADDRESS:PORT/udp`) are not started",
    );
    lacks(features.memory.is_none(), "cgroup memory: limits are held by rlimits, per process");
    lacks(features.pids.is_none(), "cgroup pids: limits are held by rlimits, per user");
    lacks(features.cpu.is_none(), "cgroup cpu: no shares between services");
    lacks(features.io.is_none(), "cgroup io: disks are not limited, what asks for it is refused");
    lacks(!features.resources, "CAP_SYS_RESOURCE: hard limits cannot be raised");
    missing
}

/// What a node says of itself whatever happens.
fn facts(arguments: &Arguments, features: &Features) -> NodeFacts {
    let missing = missing(features);
    let state = &arguments.layout.state;
    let root = state.parent().filter(|root| arguments.layout.run.starts_with(root)).unwrap_or(state);
    NodeFacts { name: arguments.node_name.clone(), root: root.to_string_lossy().into_owned(), missing }
}

/// Whether a manifest is one of the user's.
#[must_use]
pub(super) fn is_users(manifest: &LoadedManifest) -> bool {
    catalogue::find(manifest.name()).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_cannot_hold_a_way_out_says_so() {
        let says = |features: Features| missing(&features).iter().any(|line| line.contains("--egress"));
        let whole = Features { landlock_abi: LANDLOCK_TCP_ABI, seccomp_notify: true, ..Features::default() };
        assert!(!says(whole.clone()));
        assert!(says(Features { landlock_abi: LANDLOCK_TCP_ABI - 1, ..whole.clone() }));
        assert!(says(Features { seccomp_notify: false, ..whole }));
    }
}
