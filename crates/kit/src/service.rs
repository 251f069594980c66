//! What a service is to the kit, and how the kit runs it.

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use base::{AxiomTime, CapabilityId, IdentityId, KeyPath};
use contracts::lifecycle::v1::lifecycle_server::LifecycleServer as LifecycleContract;
use thiserror::Error;
use tokio::{
    net::UnixStream,
    sync::{Mutex, Notify, mpsc},
};
use tonic::{Request, Status, service::Routes};

use crate::{
    admission::{Admission, Limits},
    authority::Authority,
    channel::{Caller, ChannelKind},
    client::Peer,
    clock::AxiomClock,
    context::OperationContext,
    env::{EnvError, Inherited},
    error::KitError,
    feed::{Feed, FeedEntry, FeedPlan, Fold},
    gate::Gate,
    lifecycle::{Handed, LifecycleServer, Shared},
    local::LocalState,
    misuse::EdgeRights,
    observe::{self, Counter, Metrics},
    phase::{Life, Phase},
    server::CLOSE_TIMEOUT,
    signing::HandedKey,
    snapshot::{Parts, Snapshots},
    sockets::Sockets,
    table::{Operation, Table},
};

/// Any error of a service's own; it ends in the log, never with a caller.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long work in hand may take after `PrepareStop`; below the supervisor's default stop timeout of 10 s.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Stack of a worker thread: handlers keep their data on the heap.
const THREAD_STACK_BYTES: usize = 512 * 1024;
/// Threads for blocking file work, made on demand.
const BLOCKING_THREADS_MAX: usize = 4;
/// A thread without work ends after this, so that idle services have few.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Threads that run a service's tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// One: most services wait most of the time.
    One,
    /// So many, for services on the hot path.
    Many(usize),
}

/// A part of a service's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    pub name: String,
    pub healthy: bool,
    /// Healthy, and not working in full until somebody does something about it: a restart would not help.
    pub degraded: bool,
    pub message: Option<String>,
}

impl Component {
    #[must_use]
    pub fn healthy(name: &str) -> Self {
        Self { name: name.to_owned(), healthy: true, degraded: false, message: None }
    }

    #[must_use]
    pub fn failed(name: &str, message: impl Into<String>) -> Self {
        Self { name: name.to_owned(), healthy: false, degraded: false, message: Some(message.into()) }
    }

    #[must_use]
    pub fn degraded(name: &str, message: impl Into<String>) -> Self {
        Self { name: name.to_owned(), healthy: true, degraded: true, message: Some(message.into()) }
    }
}

/// One service. Everything that is the same for all of them stands in the kit.
pub trait Service: Send + Sync + Sized + 'static {
    /// Boot name.
    const NAME: &'static str;
    const VERSION: &'static str;
    /// Endpoints, `name protocol/major.minor`.
    const PROVIDES: &'static [&'static str] = &[];
    const THREADS: Threads = Threads::One;
    const LIMITS: Limits = Limits::DEFAULT;
    /// Counters beside those of the kit.
    const COUNTERS: &'static [&'static Counter] = &[];

    /// What a connection on an edge begins with that carries no calls; it goes to [`Service::take`] as it is.
    const GREETING: Option<&'static [u8]> = None;

    /// A connection that begins with the greeting, while clients are served. The greeting is still to be read.
    fn take(self: &Arc<Self>, _caller: &Caller, _stream: UnixStream) {}

    /// One row for each operation; one without a row does not exist.
    fn table() -> &'static [Operation];

    /// Type of the capability on this service, which the clients of its edges must hold; none: a socket suffices.
    fn capability() -> Option<&'static str> {
        base::capability_type(Self::NAME)
    }

    /// Log time, against which its clients' capabilities are held; none while it is not known.
    fn now(&self, node: &Node) -> Option<AxiomTime> {
        node.clock().now()
    }

    /// Which entries of the log this service folds; none for who does that by itself, and for axiom.
    fn feed() -> Option<FeedPlan> {
        Some(FeedPlan::of_types(&[]))
    }

    /// Where it stands in the log.
    fn place(&self, node: &Node) -> Feed {
        node.feed().clone()
    }

    /// Makes the service from what `Init` brought. An error ends the process before the reply.
    fn init(context: InitContext) -> impl Future<Output = Result<Self, BoxError>> + Send;

    /// Handlers on a kind of socket: `edge` and `admin`; `feed` and `append` for axiom, `authority` for policy.
    /// Use `.max_decoding_message_size(base::limits::MESSAGE_BYTES_MAX)` on each.
    fn routes(self: &Arc<Self>, kind: ChannelKind) -> Routes;

    /// Applies one entry, in order. An error stops the fold: from then on every expiry counts as reached.
    fn fold(&self, _entry: &FeedEntry) -> Result<(), BoxError> {
        Ok(())
    }

    /// Returns when what the folded entries take away is away, for who holds something of others that cannot be taken back at
    /// once: whoever revoked it is answered after that. Bounded by the service; beyond 500 ms it is a laggard.
    fn settled(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Version of its fold, of what it means and of what `save` writes: a change of either needs another one. None for a
    /// service that folds from genesis at each start.
    const FOLD_VERSION: Option<u32> = None;

    /// What of the log is its own beside the shared state, in the one canonical encoding (decision 0021).
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes the place of what it folded so far, before the first entry: all of it or, with an error, nothing.
    fn restore(&self, own: &[u8]) -> Result<(), BoxError> {
        match own {
            [] => Ok(()),
            _ => Err("this service keeps nothing of its own".into()),
        }
    }

    /// Everything of the log so far is folded and nobody is served yet. An error ends the process.
    fn ready(&self) -> Result<(), BoxError> {
        Ok(())
    }

    /// Its own parts; it is healthy if all are, or are not for reasons outside of it.
    fn health(&self) -> Vec<Component> {
        Vec::new()
    }

    /// After the last call has ended and before `ReadyToStop`.
    fn drain(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// What `Init` brought.
#[derive(Debug)]
pub struct InitContext {
    pub name: &'static str,
    pub version: String,
    /// TOML, as loaded.
    pub manifest: String,
    pub identity: IdentityId,
    pub key_path: KeyPath,
    pub permissions: Vec<String>,
    pub capabilities: Vec<CapabilityId>,
    pub state_folder: PathBuf,
    pub node: Node,
    /// The socket to the key boundary.
    pub boundary: Option<std::os::fd::OwnedFd>,
    pub(crate) signing: Option<HandedKey>,
    pub(crate) snapshots: Option<Snapshots>,
}

impl InitContext {
    /// What the last process wrote down, for a service that needs its own part before it follows the log. It has to see
    /// for itself that the log has what it ends with, and to refuse it otherwise.
    #[must_use]
    pub fn snapshots(&self) -> Option<&Snapshots> {
        self.snapshots.as_ref()
    }

    /// The key of a service that signs by itself; it is there once.
    pub fn signing_key(&mut self) -> Result<HandedKey, BoxError> {
        let missing = "no signing key was handed over: `signing=N` is missing in BAILIWICK_FDS";
        self.signing.take().ok_or_else(|| missing.into())
    }
}

#[derive(Debug)]
struct NodeState {
    service: &'static str,
    run_folder: PathBuf,
    identity: OnceLock<IdentityId>,
    clock: AxiomClock,
    feed: Feed,
    local: Arc<LocalState>,
    authority: Authority,
}

/// The node as a service sees it: log time, folded state, the road of acts, other services. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Node {
    state: Arc<NodeState>,
}

impl Node {
    /// Needs a running tokio runtime; connects to nothing yet.
    #[must_use]
    pub fn new(service: &'static str, run_folder: &Path) -> Self {
        let clock = AxiomClock::new();
        let feed = Feed::new();
        let authority = Authority::at(run_folder.join("authority.sock"), service, feed.clone());
        Self {
            state: Arc::new(NodeState {
                service,
                run_folder: run_folder.to_owned(),
                identity: OnceLock::new(),
                clock,
                feed,
                local: Arc::new(LocalState::new()),
                authority,
            }),
        }
    }

    pub(crate) fn set_identity(&self, identity: IdentityId) {
        let _ = self.state.identity.set(identity);
    }

    /// Boot name of this service.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.state.service
    }

    /// This service's own identity; zero before `Init`.
    #[must_use]
    pub fn identity(&self) -> IdentityId {
        self.state.identity.get().copied().unwrap_or(IdentityId([0; 32]))
    }

    #[must_use]
    pub fn clock(&self) -> &AxiomClock {
        &self.state.clock
    }

    #[must_use]
    pub fn feed(&self) -> &Feed {
        &self.state.feed
    }

    /// Identities, capabilities and rules as folded here.
    #[must_use]
    pub fn local(&self) -> &LocalState {
        &self.state.local
    }

    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.state.authority
    }

    /// Another service; its socket is there if the manifest names it.
    #[must_use]
    pub fn peer(&self, server: &str) -> Peer {
        let socket = self.state.run_folder.join(format!("{server}.sock"));
        Peer::at(socket).seeing(self.state.feed.seen())
    }

    /// Follows the log for the process's life: the shared state first, then the service's own.
    pub(crate) fn follow<S: Service>(&self, plan: FeedPlan, service: Arc<S>, snapshots: Option<Snapshots>) {
        let socket = self.state.run_folder.join("feed.sock");
        let fold = ServiceFold { local: Arc::clone(&self.state.local), service };
        self.state.feed.follow_from(socket, plan, self.state.clock.clone(), fold, snapshots);
    }
}

/// The shared state and a service's own.
struct ServiceFold<S> {
    local: Arc<LocalState>,
    service: Arc<S>,
}

impl<S: Service> Fold for ServiceFold<S> {
    fn apply(&mut self, entry: &FeedEntry) -> Result<(), BoxError> {
        self.local.apply(entry)?;
        self.service.fold(entry)
    }

    fn settled(&mut self) -> impl Future<Output = ()> + Send {
        let service = Arc::clone(&self.service);
        async move { service.settled().await }
    }

    fn save(&self) -> Option<Parts> {
        Some(Parts { shared: self.local.save_whole(), own: self.service.save() })
    }

    fn restore(&mut self, parts: &Parts) -> Result<(), BoxError> {
        let shared = LocalState::read_whole(&parts.shared)?.ok_or("its rights contradict each other")?;
        self.service.restore(&parts.own)?;
        self.local.put(shared);
        Ok(())
    }
}

/// What may differ between a node and a test.
#[derive(Clone, Debug)]
pub struct Settings {
    pub run_folder: PathBuf,
    pub state_folder: PathBuf,
    pub owner_uid: Option<u32>,
    pub drain_timeout: Duration,
    pub limits: Option<Limits>,
}

/// Why a service ended otherwise than by `Stop`.
#[derive(Debug, Error)]
pub enum FailStart {
    #[error(transparent)]
    Environment(#[from] EnvError),
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("cannot serve the socket of {name}")]
    Listen { name: String, source: std::io::Error },
    #[error("`Init` failed: {0}")]
    Init(BoxError),
    #[error("`Start` failed: {0}")]
    Ready(BoxError),
    #[error("its task ended: {0}")]
    Ended(#[source] tokio::task::JoinError),
}

/// Runs a service until `Stop`. The exit code is 0 after `Stop`, 1 if it could not be initialized, 2 if it was not
/// started by the supervisor.
#[must_use]
pub fn serve<S: Service>() -> ExitCode {
    observe::start_log(S::NAME);
    match start::<S>() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(service = S::NAME, %error, cause, "the service ends");
            ExitCode::from(if matches!(error, FailStart::Environment(_)) { 2 } else { 1 })
        }
    }
}

fn start<S: Service>() -> Result<(), FailStart> {
    let inherited = Inherited::from_env()?;
    let mut builder = match S::THREADS {
        Threads::One => tokio::runtime::Builder::new_current_thread(),
        Threads::Many(count) => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(count.max(1));
            builder
        }
    };
    let runtime = builder
        .enable_all()
        .thread_stack_size(THREAD_STACK_BYTES)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .thread_name(S::NAME)
        .build()
        .map_err(FailStart::Runtime)?;
    let settings = Settings::of(&inherited);
    // A task like all others: what wakes the one that the runtime itself waits for goes by the kernel each time.
    let running = runtime.spawn(run::<S>(inherited, settings));
    let result = runtime.block_on(running).unwrap_or_else(|error| Err(FailStart::Ended(error)));
    runtime.shutdown_background();
    result
}

impl Settings {
    #[must_use]
    pub fn of(inherited: &Inherited) -> Self {
        Self {
            run_folder: inherited.run_folder.clone(),
            state_folder: inherited.state_folder.clone(),
            owner_uid: inherited.owner_uid,
            drain_timeout: DRAIN_TIMEOUT,
            limits: None,
        }
    }
}

/// The same inside a running runtime; returns after `Stop`.
pub async fn run<S: Service>(inherited: Inherited, settings: Settings) -> Result<(), FailStart> {
    run_with::<S>(inherited, settings, None).await
}

/// For the one process whose lifecycle nobody drives, the supervisor: the service is there already and serves at once.
pub async fn run_made<S: Service>(
    service: Arc<S>,
    inherited: Inherited,
    settings: Settings,
) -> Result<(), FailStart> {
    run_with(inherited, settings, Some(service)).await
}

async fn run_with<S: Service>(
    inherited: Inherited,
    settings: Settings,
    made: Option<Arc<S>>,
) -> Result<(), FailStart> {
    let life = Arc::new(Life::default());
    let metrics = Arc::new(Metrics::new(S::NAME, S::table()));
    let routes = Arc::new(OnceLock::new());
    let now = Arc::new(OnceLock::new());
    let feed = Arc::new(OnceLock::new());
    let ended = Arc::new(Notify::new());
    let take = Arc::new(OnceLock::new());
    let node = Node::new(S::NAME, &settings.run_folder);
    let (failed, mut failure) = mpsc::channel(1);
    let gate = Gate {
        service: S::NAME,
        table: Table::new(S::table()),
        life: Arc::clone(&life),
        admission: Admission::new(S::NAME, settings.limits.unwrap_or(S::LIMITS)),
        metrics: Arc::clone(&metrics),
        routes: Arc::clone(&routes),
        rights: Arc::new(EdgeRights::new(node.clone(), S::capability())),
        now: Arc::clone(&now),
        lifecycle: Routes::default(),
        tools: OnceLock::new(),
        rows: S::table(),
        counters: S::COUNTERS,
        feed: Arc::clone(&feed),
        follows: S::feed().is_some(),
        owner_uid: settings.owner_uid,
        ended: Arc::clone(&ended),
        greeting: S::GREETING,
        take: Arc::clone(&take),
    };
    let shared = Arc::new(Shared::<S> {
        life: Arc::clone(&life),
        node,
        settings,
        metrics,
        routes,
        now,
        feed,
        ended,
        take,
        service: OnceLock::new(),
        init: Mutex::new(Handed { boundary: inherited.boundary, signing: inherited.signing }),
        failed,
    });
    if let Some(service) = made {
        shared.install(service, None);
        life.advance(Phase::Serving);
    }
    let lifecycle = LifecycleContract::new(LifecycleServer(shared))
        .max_decoding_message_size(base::limits::MESSAGE_BYTES_MAX);
    let gate = Arc::new(Gate { lifecycle: Routes::new(lifecycle).prepare(), ..gate });
    let (alive, mut last_connection) = mpsc::channel::<()>(1);
    let mut sockets = Sockets::new(gate, alive);
    let result = tokio::select! {
        () = life.reached(Phase::Ended) => Ok(()),
        Some(error) = failure.recv() => Err(error),
        error = sockets.serve(inherited.listeners, inherited.clients) => Err(error),
    };
    life.advance(Phase::Ended);
    sockets.close().await;
    // Nothing is ever sent: this ends when the last connection has.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, last_connection.recv()).await;
    result
}

/// Runs to its end even if the caller goes away: what lies between a commit and its effect must not be cut.
pub async fn uncancelled<F>(work: F) -> F::Output
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match tokio::spawn(work).await {
        Ok(output) => output,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: nobody waits for this any more.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Who calls, by the socket.
pub fn caller<T>(request: &Request<T>) -> Result<&Caller, Status> {
    request.extensions().get().ok_or_else(|| KitError::HandlerDied.into())
}

/// The checked context of a call.
pub fn context_of<T>(request: &Request<T>) -> Result<&Arc<OperationContext>, Status> {
    request.extensions().get().ok_or_else(|| KitError::EnvelopeInvalid("no context".to_owned()).into())
}
