//! A service for the tests: the `Keys` contract with a handler that counts, and `Axiom/Range` as a stream.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use contracts::{
    axiom::v1::{self as axiom, axiom_server},
    keys::v1::{self as keys, keys_client::KeysClient, keys_server},
    lifecycle::v1::{self as lifecycle, lifecycle_client::LifecycleClient},
};
use kit::{
    BoxError, Callers, ChannelKind, Component, Cost, FailStart, FeedEntry, FeedPlan, Guilty, InitContext,
    IntoRefusal, Operation, OperationContext, Peer, Service, Settings,
    client::Calls,
    env::{Inherited, Listener},
};
use sandbox::fdpass::Channel;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::Semaphore,
    task::JoinHandle,
};
use tonic::{Request, Response, Status, service::Routes};

pub const KEYS: &str = "/bailiwick.keys.v1.Keys";

static TABLE: [Operation; 4] = [
    Operation::acts("/bailiwick.keys.v1.Keys/Sign", Cost::Heavy, "system.keys.sign"),
    Operation::reads("/bailiwick.keys.v1.Keys/Verify", Cost::Light, "system.keys.verify"),
    Operation::reads("/bailiwick.keys.v1.Keys/DerivePublicKey", Cost::Light, "system.keys.derive")
        .callers(Callers::Admin),
    Operation::reads("/bailiwick.axiom.v1.Axiom/Range", Cost::Light, "system.axiom.read"),
];

/// What a test sees of the service.
#[derive(Debug)]
pub struct Probe {
    pub inits: AtomicUsize,
    pub handled: AtomicUsize,
    pub drained: AtomicUsize,
    pub folded: Mutex<Vec<u64>>,
    /// `Sign` takes a permit before it answers.
    pub sign: Semaphore,
    pub fail_init: bool,
    pub fail_ready: bool,
    pub feed: bool,
}

impl Probe {
    pub fn handled(&self) -> usize {
        self.handled.load(Ordering::SeqCst)
    }
}

static PROBES: OnceLock<Mutex<HashMap<PathBuf, Arc<Probe>>>> = OnceLock::new();

fn probes() -> &'static Mutex<HashMap<PathBuf, Arc<Probe>>> {
    PROBES.get_or_init(Mutex::default)
}

pub struct TestService {
    probe: Arc<Probe>,
}

/// The same with a feed.
pub struct Following(TestService);

#[derive(Debug, thiserror::Error)]
#[error("path {0:?} is none")]
struct WrongPath(String);

impl IntoRefusal for WrongPath {
    const DOMAIN: &'static str = "bailiwick.keys.v1";

    fn reason(&self) -> &'static str {
        "InvalidPath"
    }

    fn guilty(&self) -> Guilty {
        Guilty::Misuse
    }
}

struct Handlers(Arc<Probe>);

#[tonic::async_trait]
impl keys_server::Keys for Handlers {
    async fn derive_public_key(
        &self,
        request: Request<keys::DerivePublicKeyRequest>,
    ) -> Result<Response<keys::PublicKey>, Status> {
        self.0.handled.fetch_add(1, Ordering::SeqCst);
        assert!(kit::caller(&request)?.is_admin());
        if request.get_ref().path.is_empty() {
            return Err(WrongPath(String::new()).to_status());
        }
        Ok(Response::new(keys::PublicKey { key: vec![7; 32], epoch: 0 }))
    }

    async fn sign(
        &self,
        request: Request<keys::SignRequest>,
    ) -> Result<Response<keys::SignResponse>, Status> {
        self.0.handled.fetch_add(1, Ordering::SeqCst);
        self.0.sign.acquire().await.unwrap().forget();
        Ok(Response::new(keys::SignResponse {
            signature: request.into_inner().message,
            ..Default::default()
        }))
    }

    async fn sign_bytes(
        &self,
        _: Request<keys::SignBytesRequest>,
    ) -> Result<Response<keys::SignResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn encrypt(
        &self,
        _: Request<keys::EncryptRequest>,
    ) -> Result<Response<keys::EncryptResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn decrypt(
        &self,
        _: Request<keys::DecryptRequest>,
    ) -> Result<Response<keys::DecryptResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn verify(
        &self,
        request: Request<keys::VerifyRequest>,
    ) -> Result<Response<keys::VerifyReply>, Status> {
        self.0.handled.fetch_add(1, Ordering::SeqCst);
        let context = kit::context_of(&request)?;
        assert_eq!(context.capability(), Some("system.keys.verify"));
        let caller = kit::caller(&request)?;
        assert!(caller.is_admin() || ["alice", "bob"].contains(&&*caller.client));
        if request.get_ref().signature == b"wrong" {
            return Err(WrongPath("/wrong".to_owned()).to_status());
        }
        Ok(Response::new(keys::VerifyReply { valid: request.get_ref().message == b"hello" }))
    }

    async fn get_key_info(
        &self,
        _: Request<keys::GetKeyInfoRequest>,
    ) -> Result<Response<keys::KeyInfo>, Status> {
        self.0.handled.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(keys::KeyInfo::default()))
    }

    async fn lock(&self, _: Request<keys::LockRequest>) -> Result<Response<keys::LockReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn unlock(&self, _: Request<keys::UnlockRequest>) -> Result<Response<keys::UnlockReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn rotate(&self, _: Request<keys::RotateRequest>) -> Result<Response<keys::RotateReply>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[tonic::async_trait]
impl axiom_server::Axiom for Handlers {
    type RangeStream = tokio_stream::Iter<std::vec::IntoIter<Result<axiom::Entries, Status>>>;

    async fn range(
        &self,
        request: Request<axiom::RangeRequest>,
    ) -> Result<Response<Self::RangeStream>, Status> {
        self.0.handled.fetch_add(1, Ordering::SeqCst);
        let request = request.into_inner();
        let entries =
            |sequence| axiom::Entries { entries: vec![axiom::Entry { sequence, ..Default::default() }] };
        let mut all: Vec<_> = (request.from..=request.to).map(|sequence| Ok(entries(sequence))).collect();
        if request.entry_types == [99] {
            all.push(Err(WrongPath("/late".to_owned()).to_status()));
        }
        Ok(Response::new(tokio_stream::iter(all)))
    }

    async fn read(&self, _: Request<axiom::ReadRequest>) -> Result<Response<axiom::Entry>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_head(&self, _: Request<axiom::GetHeadRequest>) -> Result<Response<axiom::Head>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_checkpoint(
        &self,
        _: Request<axiom::GetCheckpointRequest>,
    ) -> Result<Response<axiom::Checkpoint>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_state(&self, _: Request<axiom::GetStateRequest>) -> Result<Response<axiom::State>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn await_folded(
        &self,
        _: Request<axiom::AwaitFoldedRequest>,
    ) -> Result<Response<axiom::AwaitFoldedReply>, Status> {
        Err(Status::unimplemented(""))
    }
}

impl Service for TestService {
    const NAME: &'static str = "keys";
    const VERSION: &'static str = "1.2.3";
    const PROVIDES: &'static [&'static str] = &["keys bailiwick.keys/1.0"];

    fn table() -> &'static [Operation] {
        &TABLE
    }

    fn feed() -> Option<FeedPlan> {
        None
    }

    /// Nobody grants anything here.
    fn capability() -> Option<&'static str> {
        None
    }

    async fn init(context: InitContext) -> Result<Self, BoxError> {
        let probe = Arc::clone(probes().lock().unwrap().get(&context.state_folder).unwrap());
        probe.inits.fetch_add(1, Ordering::SeqCst);
        if probe.fail_init {
            return Err("no seed".into());
        }
        Ok(Self { probe })
    }

    fn ready(&self) -> Result<(), BoxError> {
        if self.probe.fail_ready { Err("not its key".into()) } else { Ok(()) }
    }

    fn routes(self: &Arc<Self>, kind: ChannelKind) -> Routes {
        routes(&self.probe, kind)
    }

    fn health(&self) -> Vec<Component> {
        vec![Component::healthy("boundary")]
    }

    async fn drain(&self) {
        self.probe.drained.fetch_add(1, Ordering::SeqCst);
    }
}

fn routes(probe: &Arc<Probe>, kind: ChannelKind) -> Routes {
    match kind {
        ChannelKind::Edge | ChannelKind::Admin => {
            Routes::new(keys_server::KeysServer::new(Handlers(Arc::clone(probe))))
                .add_service(axiom_server::AxiomServer::new(Handlers(Arc::clone(probe))))
        }
        _ => Routes::default(),
    }
}

impl Service for Following {
    const NAME: &'static str = "keys";
    const VERSION: &'static str = "1.2.3";

    fn table() -> &'static [Operation] {
        &TABLE
    }

    fn feed() -> Option<FeedPlan> {
        Some(FeedPlan::all())
    }

    fn capability() -> Option<&'static str> {
        None
    }

    async fn init(context: InitContext) -> Result<Self, BoxError> {
        TestService::init(context).await.map(Self)
    }

    fn routes(self: &Arc<Self>, kind: ChannelKind) -> Routes {
        routes(&self.0.probe, kind)
    }

    fn fold(&self, entry: &FeedEntry) -> Result<(), BoxError> {
        self.0.probe.folded.lock().unwrap().push(entry.sequence.0);
        Ok(())
    }

    const FOLD_VERSION: Option<u32> = Some(1);

    /// One byte for each entry.
    fn save(&self) -> Vec<u8> {
        self.0.probe.folded.lock().unwrap().iter().map(|sequence| *sequence as u8).collect()
    }

    fn restore(&self, own: &[u8]) -> Result<(), BoxError> {
        if own.len() == 3 {
            return Err("this service restores nothing of three entries".into());
        }
        *self.0.probe.folded.lock().unwrap() = own.iter().map(|byte| u64::from(*byte)).collect();
        Ok(())
    }
}

/// A running service in a folder of its own.
pub struct Rig {
    pub folder: tempfile::TempDir,
    pub probe: Arc<Probe>,
    pub running: JoinHandle<Result<(), FailStart>>,
    /// Where the service is told of its clients.
    pub clients: Channel,
}

/// What a test wants to be different.
#[derive(Default)]
pub struct Wish {
    pub fail_init: bool,
    pub fail_ready: bool,
    pub drain_timeout: Option<Duration>,
    pub limits: Option<kit::admission::Limits>,
    /// Where the last process kept its files.
    pub state_folder: Option<PathBuf>,
}

pub fn rig<S: Service>(wish: Wish) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let probe = Arc::new(Probe {
        inits: AtomicUsize::new(0),
        handled: AtomicUsize::new(0),
        drained: AtomicUsize::new(0),
        folded: Mutex::default(),
        sign: Semaphore::new(0),
        fail_init: wish.fail_init,
        fail_ready: wish.fail_ready,
        feed: false,
    });
    let state_folder = wish.state_folder.unwrap_or_else(|| folder.path().to_owned());
    probes().lock().unwrap().insert(state_folder.clone(), Arc::clone(&probe));
    let mut inherited = Inherited::empty();
    inherited.run_folder = folder.path().to_owned();
    inherited.state_folder = state_folder;
    inherited.owner_uid = Some(rustix::process::getuid().as_raw());
    for (kind, client) in
        [(ChannelKind::Lifecycle, "supervisor"), (ChannelKind::Edge, "alice"), (ChannelKind::Admin, "admin")]
    {
        let socket =
            std::os::unix::net::UnixListener::bind(folder.path().join(format!("{client}.sock"))).unwrap();
        inherited.listeners.push(Listener::new(kind, client, socket));
    }
    let (clients, theirs) = Channel::pair().unwrap();
    inherited.clients = Some(theirs.into());
    let mut settings = Settings::of(&inherited);
    settings.limits = wish.limits;
    settings.drain_timeout = wish.drain_timeout.unwrap_or(settings.drain_timeout);
    let running = tokio::spawn(kit::run::<S>(inherited, settings));
    Rig { folder, probe, running, clients }
}

pub fn init_request() -> lifecycle::InitRequest {
    lifecycle::InitRequest {
        config: Some(lifecycle::ServiceConfig { name: "keys".to_owned(), ..Default::default() }),
        capabilities: vec![vec![1; 16]],
        identity: Some(lifecycle::ServiceIdentity {
            id: vec![2; 32],
            key_path: "/orbital/services/keys".to_owned(),
            permissions: vec![],
        }),
    }
}

impl Rig {
    pub fn socket(&self, client: &str) -> PathBuf {
        self.folder.path().join(format!("{client}.sock"))
    }

    pub fn lifecycle(&self) -> LifecycleClient<tonic::transport::Channel> {
        LifecycleClient::new(Peer::at(self.socket("supervisor")).channel())
    }

    /// Init and Start.
    pub async fn started(self) -> Self {
        let mut lifecycle = self.lifecycle();
        lifecycle.init(init_request()).await.unwrap();
        lifecycle.start(lifecycle::StartRequest {}).await.unwrap();
        self
    }

    pub fn keys(&self, client: &str, verb: &str) -> KeysClient<Calls> {
        KeysClient::new(
            Peer::at(self.socket(client)).with(&context(&format!("system.keys.{verb}")), None).unwrap(),
        )
    }
}

pub fn context(capability: &str) -> OperationContext {
    OperationContext::of_service(base::IdentityId([3; 32]), capability, base::TraceId([4; 16])).unwrap()
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

/// A request as `curl --unix-socket` writes it.
pub async fn curl(socket: &Path, path: &str, context: Option<&str>, body: &str) -> Answer {
    let context = context.map(|context| format!("bailiwick-context: {context}\r\n")).unwrap_or_default();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n{context}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    raw(socket, request.as_bytes()).await.unwrap_or_else(|| panic!("no answer to {path}"))
}

/// Sends bytes and reads until the server closes; none if it answered nothing.
pub async fn raw(socket: &Path, bytes: &[u8]) -> Option<Answer> {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    // The server may close before it has read all.
    let _ = stream.write_all(bytes).await;
    let mut text = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut text))
        .await
        .expect("an answer or an end");
    let _ = read;
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body) } else { body.to_owned() };
    Some(Answer { status, head: head.to_owned(), body })
}

fn unchunk(mut text: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.push_str(&rest[..size]);
        text = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

/// Waits until something is true, at most ten seconds.
pub async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if is_true() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}
