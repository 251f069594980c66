//! A node around one service under test: a log that is a list, a policy that decides by a function, and the service's own
//! sockets, all in one process. Included by the tests of the services; there is nothing of it outside of tests.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "each test file uses its own part, and a test fails by panicking"
)]

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use base::{
    AxiomRef, AxiomTime, CapabilityId, EntryKey, Hash, IdentityId, KeyPath, PublicKey, RuleId, Sequence,
    TraceId, cbor,
};
use chain::{
    genesis::{self, GenesisPlan},
    merkle,
    payload::{
        Body, Envelope, Payload,
        capability::{CapabilityGrant, ObjectType, Permissions, Resource},
        policy::{DecisionBody, DecisionSignature, PolicyEffect, PolicyRequest, SignedDecision},
    },
};
use contracts::{
    axiom::v1::{
        self as axiom, FeedBatch, FollowRequest, axiom_server::AxiomServer, feed_server::FeedServer,
        follow_request::Step,
    },
    lifecycle::v1::{self as lifecycle, lifecycle_client::LifecycleClient},
    policy::v1::{
        AuthorityBatch, AuthorityItem, AuthorityReplies, AuthorityReply, Committed, Denied, Refused,
        authority_item::Item, authority_reply::Result as Answer, authority_server::AuthorityServer,
    },
};
use ed25519_dalek::SigningKey;
use kit::{
    ChannelKind, FailStart, HandedKey, OperationContext, Peer, Service, Settings, boot_time_ns,
    client::Calls,
    env::{Inherited, Listener},
};
use tokio::{net::UnixListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

pub const START: AxiomTime = AxiomTime(1_790_000_000_000_000_000);
/// Longest wait for anything.
pub const LIMIT: Duration = Duration::from_secs(20);

pub fn policy_key() -> SigningKey {
    SigningKey::from_bytes(&[42; 32])
}

pub fn identity_key() -> SigningKey {
    SigningKey::from_bytes(&[43; 32])
}

pub fn public_half(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

/// Stands for what `keys` derives.
pub fn key_of(path: &KeyPath) -> PublicKey {
    public_half(&SigningKey::from_bytes(&Hash::of(path.to_string().as_bytes()).0))
}

pub fn id_of(path: &str) -> IdentityId {
    IdentityId::of_key(&key_of(&KeyPath::parse(path).unwrap()))
}

pub fn service_id(name: &str) -> IdentityId {
    id_of(&format!("/orbital/services/{name}"))
}

pub fn admin() -> IdentityId {
    id_of("/orbital/users/admin")
}

type Verdict = Box<dyn Fn(&PolicyRequest) -> bool + Send>;

struct World {
    entries: Vec<axiom::Entry>,
    verdict: Verdict,
    /// Records are refused while this is set.
    deaf: bool,
    laggards: Vec<String>,
    awaited: Vec<u64>,
    /// Boot time at the log's beginning.
    began_ns: u64,
}

/// Log and policy; cheap to clone.
#[derive(Clone)]
pub struct Land(Arc<Mutex<World>>);

impl Land {
    fn now(world: &World) -> AxiomTime {
        START.saturating_add(boot_time_ns() - world.began_ns)
    }

    fn push(world: &mut World, entry_type: u32, payload: Vec<u8>) -> AxiomRef {
        let sequence = world.entries.len() as u64;
        let hash = Hash::of_parts(&[&sequence.to_le_bytes(), &payload]);
        let timestamp_ns = Self::now(world).0;
        world.entries.push(axiom::Entry {
            sequence,
            entry_type,
            payload,
            timestamp_ns,
            hash: hash.0.to_vec(),
            ..axiom::Entry::default()
        });
        AxiomRef { sequence: Sequence(sequence), hash }
    }

    pub fn append<T: Body>(&self, body: T) -> AxiomRef {
        let envelope = Envelope { submitter: admin(), key: EntryKey([0; 16]), authorization: None, body };
        Self::push(&mut self.0.lock().unwrap(), T::ENTRY_TYPE, envelope.to_bytes().unwrap())
    }

    /// Decides as policy would, and records it.
    pub fn decide(&self, request: &PolicyRequest) -> (AxiomRef, SignedDecision, bool) {
        let mut world = self.0.lock().unwrap();
        Self::decide_in(&mut world, request)
    }

    fn decide_in(world: &mut World, request: &PolicyRequest) -> (AxiomRef, SignedDecision, bool) {
        let allows = (world.verdict)(request);
        let body = cbor::encode(&DecisionBody {
            request_hash: request.hash(),
            requestor: request.requestor,
            action: request.action.clone(),
            resource: request.resource.clone(),
            context: request.context.clone(),
            nonce: request.nonce,
            policy_state_hash: Hash::ZERO,
            matched_rules: vec![],
            effect: if allows { PolicyEffect::Allow } else { PolicyEffect::Deny },
            deciding_rule: RuleId::default_deny(),
            conditions: vec![],
            timestamp: Self::now(world),
            reason: (!allows).then(|| "no".to_owned()),
        });
        let tree = merkle::Tree::new(vec![merkle::leaf(&body)]).unwrap();
        let root = merkle::sign_root(&policy_key(), &tree.root());
        let signature = DecisionSignature { root, index: 0, count: 1, path: tree.path(0).unwrap() };
        let decision = SignedDecision { body, signature };
        let envelope = Envelope {
            submitter: service_id("policy"),
            key: EntryKey([0; 16]),
            authorization: None,
            body: decision.clone(),
        };
        let at = Self::push(world, SignedDecision::ENTRY_TYPE, envelope.to_bytes().unwrap());
        (at, decision, allows)
    }

    pub fn set_verdict(&self, verdict: impl Fn(&PolicyRequest) -> bool + Send + 'static) {
        self.0.lock().unwrap().verdict = Box::new(verdict);
    }

    pub fn set_deaf(&self, deaf: bool) {
        self.0.lock().unwrap().deaf = deaf;
    }

    pub fn set_laggards(&self, laggards: &[&str]) {
        self.0.lock().unwrap().laggards = laggards.iter().map(|name| (*name).to_owned()).collect();
    }

    pub fn awaited(&self) -> Vec<u64> {
        self.0.lock().unwrap().awaited.clone()
    }

    /// Payloads of one entry type, in order.
    pub fn payloads(&self, entry_type: u32) -> Vec<(AxiomRef, Payload)> {
        let world = self.0.lock().unwrap();
        let of_type = world.entries.iter().filter(|entry| entry.entry_type == entry_type);
        of_type
            .map(|entry| {
                let at = AxiomRef {
                    sequence: Sequence(entry.sequence),
                    hash: Hash::from_slice(&entry.hash).unwrap(),
                };
                (at, Payload::decode(entry_type, &entry.payload).unwrap())
            })
            .collect()
    }

    fn answer(&self, item: AuthorityItem) -> AuthorityReply {
        let mut world = self.0.lock().unwrap();
        let decide = |world: &mut World, request: &[u8]| {
            let request = cbor::decode::<PolicyRequest>(request).unwrap();
            (Self::decide_in(world, &request), request)
        };
        let result = match item.item.unwrap() {
            Item::Act(act) => {
                let ((decision, signed, allows), request) = decide(&mut world, &act.request);
                let entry = act.entry.unwrap();
                let payload = Payload::decode(entry.entry_type, &entry.payload).unwrap();
                assert_eq!(payload.head().authorization, Some(request.hash()), "bound to its request");
                match allows {
                    true => {
                        let at = Self::push(&mut world, entry.entry_type, entry.payload);
                        Answer::Committed(Committed {
                            decision: Some(decision.into()),
                            entry: Some(at.into()),
                            signed_decision: cbor::encode(&signed),
                            laggards: world.laggards.clone(),
                            ..Committed::default()
                        })
                    }
                    false => Answer::Denied(Denied { decision: Some(decision.into()), later_by: None }),
                }
            }
            Item::Evaluate(asked) | Item::UseNow(asked) => match decide(&mut world, &asked.request) {
                ((decision, signed, true), _) => Answer::Committed(Committed {
                    decision: Some(decision.into()),
                    signed_decision: cbor::encode(&signed),
                    ..Committed::default()
                }),
                ((decision, ..), _) => {
                    Answer::Denied(Denied { decision: Some(decision.into()), later_by: None })
                }
            },
            Item::Record(_) | Item::Redeem(_) if world.deaf => {
                Answer::Refused(Refused { reason: "AxiomUnavailable".to_owned(), text: "no log".to_owned() })
            }
            Item::Record(entry) => {
                let at = Self::push(&mut world, entry.entry_type, entry.payload);
                Answer::Committed(Committed { entry: Some(at.into()), ..Committed::default() })
            }
            Item::Redeem(redeem) => {
                let entry = redeem.entry.unwrap();
                let payload = Payload::decode(entry.entry_type, &entry.payload).unwrap();
                assert!(payload.head().authorization.is_some(), "cites the decision that it redeems");
                let at = Self::push(&mut world, entry.entry_type, entry.payload);
                Answer::Committed(Committed { entry: Some(at.into()), ..Committed::default() })
            }
            other => panic!("not used here: {other:?}"),
        };
        AuthorityReply { id: item.id, result: Some(result) }
    }

    fn batch(&self, types: &[u32], next: usize, replay: bool) -> FeedBatch {
        let world = self.0.lock().unwrap();
        let wanted = |entry: &&axiom::Entry| types.is_empty() || types.contains(&entry.entry_type);
        FeedBatch {
            entries: world.entries[next..].iter().filter(wanted).cloned().collect(),
            up_to: world.entries.len() as u64 - 1,
            replay,
            axiom_time_ns: Self::now(&world).0,
            boot_time_ns: boot_time_ns(),
            up_to_hash: world.entries.last().map(|entry| entry.hash.clone()).unwrap_or_default(),
            save: false,
        }
    }
}

#[tonic::async_trait]
impl axiom::feed_server::Feed for Land {
    type FollowStream = ReceiverStream<Result<FeedBatch, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<FollowRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let (world, mut steps) = (self.clone(), request.into_inner());
        let (send, batches) = mpsc::channel(16);
        tokio::spawn(async move {
            let Ok(Some(FollowRequest { step: Some(Step::Start(start)) })) = steps.message().await else {
                return;
            };
            let mut next = start.from as usize;
            let mut replay = true;
            loop {
                let batch = world.batch(&start.entry_types, next, replay);
                next = batch.up_to as usize + 1;
                if send.send(Ok(batch)).await.is_err() {
                    return;
                }
                replay = false;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        // Acknowledgements are not read; there are few.
        Ok(Response::new(ReceiverStream::new(batches)))
    }
}

#[tonic::async_trait]
impl contracts::policy::v1::authority_server::Authority for Land {
    type ChannelStream = ReceiverStream<Result<AuthorityReplies, Status>>;

    async fn channel(
        &self,
        request: Request<Streaming<AuthorityBatch>>,
    ) -> Result<Response<Self::ChannelStream>, Status> {
        let (world, mut batches) = (self.clone(), request.into_inner());
        let (send, replies) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok(Some(batch)) = batches.message().await {
                let replies = batch.items.into_iter().map(|item| world.answer(item)).collect();
                if send.send(Ok(AuthorityReplies { replies })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(replies)))
    }
}

#[tonic::async_trait]
impl axiom::axiom_server::Axiom for Land {
    type RangeStream = ReceiverStream<Result<axiom::Entries, Status>>;

    async fn read(&self, _: Request<axiom::ReadRequest>) -> Result<Response<axiom::Entry>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn range(&self, _: Request<axiom::RangeRequest>) -> Result<Response<Self::RangeStream>, Status> {
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
        request: Request<axiom::AwaitFoldedRequest>,
    ) -> Result<Response<axiom::AwaitFoldedReply>, Status> {
        assert_eq!(request.get_ref().timeout_ms, 500);
        let mut world = self.0.lock().unwrap();
        world.awaited.push(request.get_ref().sequence);
        Ok(Response::new(axiom::AwaitFoldedReply { laggards: world.laggards.clone() }))
    }
}

/// Clients of the service under test; each holds its capability.
pub const CLIENTS: [&str; 2] = ["terminal", "network"];

/// The id by which a client holds the capability of the service under test.
pub fn capability_of(client: &str) -> CapabilityId {
    CapabilityId(*Hash::of(client.as_bytes()).0.first_chunk().unwrap())
}

fn full_capability(client: &str, capability_type: &str) -> CapabilityGrant {
    CapabilityGrant {
        capability_id: capability_of(client),
        grantor: id_of("/orbital/system"),
        grantee: service_id(client),
        resource: Resource { object_type: ObjectType::Service, object_id: capability_type.to_owned() },
        permissions: Permissions { read: true, write: true, execute: true, delegate: false, revoke: false },
        restrictions: None,
        parent: None,
    }
}

/// A running service with edges, an admin socket, and a log that begins with genesis.
pub struct Node {
    pub folder: tempfile::TempDir,
    pub world: Land,
    pub running: JoinHandle<Result<(), FailStart>>,
}

impl Node {
    /// `boundary` is the service's end of the socket to the key boundary.
    pub async fn start<S: Service>(boundary: Option<std::os::fd::OwnedFd>, genesis: GenesisPlan) -> Self {
        let node = Self::serve::<S>(boundary, genesis);
        node.begin(S::NAME).await.unwrap();
        node
    }

    /// Before `Init`.
    pub fn serve<S: Service>(boundary: Option<std::os::fd::OwnedFd>, mut genesis: GenesisPlan) -> Self {
        if let Some(capability_type) = S::capability() {
            let held = CLIENTS.map(|client| full_capability(client, capability_type));
            genesis.initial_capabilities.extend(held);
        }
        let folder = tempfile::tempdir().unwrap();
        let world = Land(Arc::new(Mutex::new(World {
            entries: vec![],
            verdict: Box::new(|_| true),
            deaf: false,
            laggards: vec![],
            awaited: vec![],
            began_ns: boot_time_ns(),
        })));
        world.append(genesis::build(genesis, |path| Some(key_of(path))).unwrap());
        let serve = |name: &str, server: tonic::transport::server::Router| {
            let listener = UnixListener::bind(folder.path().join(name)).unwrap();
            tokio::spawn(async move {
                server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap()
            });
        };
        serve("feed.sock", Server::builder().add_service(FeedServer::new(world.clone())));
        serve("authority.sock", Server::builder().add_service(AuthorityServer::new(world.clone())));
        serve("axiom.sock", Server::builder().add_service(AxiomServer::new(world.clone())));
        let mut inherited = Inherited::empty();
        inherited.run_folder = folder.path().to_owned();
        inherited.state_folder = folder.path().to_owned();
        inherited.boundary = boundary;
        inherited.signing = Some(HandedKey::new(identity_key()));
        inherited.owner_uid = Some(rustix::process::getuid().as_raw());
        let edges = CLIENTS.map(|client| (ChannelKind::Edge, client));
        for (kind, client) in
            [(ChannelKind::Lifecycle, "supervisor"), (ChannelKind::Admin, "admin")].into_iter().chain(edges)
        {
            let socket =
                std::os::unix::net::UnixListener::bind(folder.path().join(format!("of-{client}.sock")));
            inherited.listeners.push(Listener::new(kind, client, socket.unwrap()));
        }
        let settings = Settings::of(&inherited);
        let running = tokio::spawn(kit::run::<S>(inherited, settings));
        Self { folder, world, running }
    }

    /// `Init` and `Start`; an error where the service ends instead of answering.
    pub async fn begin(&self, name: &str) -> Result<(), Status> {
        let mut client = self.lifecycle();
        let identity = lifecycle::ServiceIdentity {
            id: service_id(name).0.to_vec(),
            key_path: format!("/orbital/services/{name}"),
            permissions: vec![],
        };
        let config = lifecycle::ServiceConfig { name: name.to_owned(), ..Default::default() };
        let init =
            lifecycle::InitRequest { config: Some(config), capabilities: vec![], identity: Some(identity) };
        tokio::time::timeout(LIMIT, client.init(init)).await.expect("Init is answered")?;
        tokio::time::timeout(LIMIT, client.start(lifecycle::StartRequest {})).await.expect("Started")?;
        Ok(())
    }

    pub fn lifecycle(&self) -> LifecycleClient<tonic::transport::Channel> {
        LifecycleClient::new(Peer::at(self.socket("supervisor")).channel())
    }

    pub async fn health(&self) -> lifecycle::HealthStatus {
        self.lifecycle().health_check(lifecycle::HealthCheckRequest {}).await.unwrap().into_inner()
    }

    pub fn socket(&self, client: &str) -> PathBuf {
        self.folder.path().join(format!("of-{client}.sock"))
    }

    /// Calls of a client in its own name: `admin`, or the service of that name.
    pub fn calls(&self, client: &str, capability: &str, token: Option<&str>) -> Calls {
        let id = if client == "admin" { admin() } else { service_id(client) };
        self.calls_as(client, id, capability, token)
    }

    /// The same with any requester claimed.
    pub fn calls_as(
        &self,
        client: &str,
        claimed: IdentityId,
        capability: &str,
        token: Option<&str>,
    ) -> Calls {
        let context = OperationContext::of_service(claimed, capability, TraceId([4; 16])).unwrap();
        Peer::at(self.socket(client)).with(&context, token).unwrap()
    }

    /// A token as the identity service would issue it.
    pub fn token(&self, identity: IdentityId, channel: &str) -> String {
        let now = Land::now(&self.world.0.lock().unwrap());
        let claims = kit::token::Claims {
            id: base::TokenId([9; 16]),
            identity,
            issued_at: now,
            expires_at: now.saturating_add(kit::token::LIFE_NS_DEFAULT),
            scope: kit::token::TokenScope::default(),
            channel: channel.to_owned(),
            authentication: None,
        };
        kit::token::issue(&identity_key(), claims).unwrap().text
    }
}

pub fn genesis_plan() -> GenesisPlan {
    GenesisPlan {
        image_hash: Hash::ZERO,
        genesis_time: START,
        node_name: "desk".to_owned(),
        node_key: PublicKey([7; 32]),
        sequencer_key: PublicKey([7; 32]),
        policy_key: public_half(&policy_key()),
        identity_key: public_half(&identity_key()),
        admin_uid: 1000,
        rules: vec![],
        initial_capabilities: vec![],
    }
}

/// Reason of a refusal, as the contract names it.
pub fn reason<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    kit::CallError::from(result.unwrap_err()).reason().to_owned()
}
