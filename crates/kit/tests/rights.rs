//! Over an edge a client does what the capability permits that it holds on the service, and nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "support/node.rs"]
mod node;

use std::sync::Arc;

use base::{AxiomRef, CapabilityId, Sequence, TraceId};
use chain::payload::{
    capability::{CapabilityGrant, CapabilityRevoke, ObjectType, Permissions, Resource},
    identity::{IdentityChange, IdentityStatus, IdentityUpdated},
};
use contracts::keys::v1::{self as keys, keys_client::KeysClient, keys_server};
use kit::{
    BoxError, ChannelKind, Cost, FEED_WAIT_MAX, InitContext, Operation, OperationContext, Peer, Right, Seen,
    Service,
};
use node::{LIMIT, Node, admin, capability_of, genesis_plan, reason, service_id};
use tonic::{Request, Response, Status, service::Routes};

static TABLE: [Operation; 4] = [
    Operation::acts("/bailiwick.keys.v1.Keys/Sign", Cost::Light, "system.keys.sign").right(Right::Execute),
    Operation::reads("/bailiwick.keys.v1.Keys/GetKeyInfo", Cost::Light, "system.keys.get_key_info"),
    Operation::reads("/bailiwick.keys.v1.Keys/Verify", Cost::Light, "system.keys.verify"),
    Operation::reads("/bailiwick.keys.v1.Keys/DerivePublicKey", Cost::Light, "system.keys.derive").public(),
];

struct Keys;

#[tonic::async_trait]
impl keys_server::Keys for Keys {
    async fn derive_public_key(
        &self,
        _: Request<keys::DerivePublicKeyRequest>,
    ) -> Result<Response<keys::PublicKey>, Status> {
        Ok(Response::new(keys::PublicKey::default()))
    }

    async fn sign(&self, _: Request<keys::SignRequest>) -> Result<Response<keys::SignResponse>, Status> {
        Ok(Response::new(keys::SignResponse::default()))
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

    async fn verify(&self, _: Request<keys::VerifyRequest>) -> Result<Response<keys::VerifyReply>, Status> {
        Ok(Response::new(keys::VerifyReply::default()))
    }

    async fn get_key_info(
        &self,
        _: Request<keys::GetKeyInfoRequest>,
    ) -> Result<Response<keys::KeyInfo>, Status> {
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

impl Service for Keys {
    const NAME: &'static str = "keys";
    const VERSION: &'static str = "1.0.0";

    fn table() -> &'static [Operation] {
        &TABLE
    }

    async fn init(_: InitContext) -> Result<Self, BoxError> {
        Ok(Self)
    }

    fn routes(self: &Arc<Self>, kind: ChannelKind) -> Routes {
        match kind {
            ChannelKind::Edge | ChannelKind::Admin => Routes::new(keys_server::KeysServer::new(Self)),
            _ => Routes::default(),
        }
    }
}

impl Node {
    async fn info(&self, client: &str) -> Result<(), Status> {
        let mut keys = KeysClient::new(self.calls(client, "system.keys.get_key_info", None));
        keys.get_key_info(keys::GetKeyInfoRequest::default()).await.map(|_| ())
    }

    async fn sign(&self, client: &str) -> Result<(), Status> {
        let mut keys = KeysClient::new(self.calls(client, "system.keys.sign", None));
        keys.sign(keys::SignRequest::default()).await.map(|_| ())
    }

    async fn derive(&self, client: &str) -> Result<(), Status> {
        let mut keys = KeysClient::new(self.calls(client, "system.keys.derive", None));
        keys.derive_public_key(keys::DerivePublicKeyRequest::default()).await.map(|_| ())
    }

    fn revoke(&self, capability: CapabilityId) -> AxiomRef {
        self.world.append(CapabilityRevoke { capability, by: admin(), reason: String::new() })
    }

    /// By a caller who has seen this much of the log.
    async fn info_seeing(&self, client: &str, seen: &Seen) -> Result<(), Status> {
        let id = if client == "admin" { admin() } else { service_id(client) };
        let context = OperationContext::of_service(id, "system.keys.get_key_info", TraceId([4; 16])).unwrap();
        let peer = Peer::at(self.socket(client)).seeing(seen);
        let mut keys = KeysClient::new(peer.with(&context, None).unwrap());
        keys.get_key_info(keys::GetKeyInfoRequest::default()).await.map(|_| ())
    }

    fn grant(&self, id: u8, client: &str, permissions: Permissions) {
        self.world.append(CapabilityGrant {
            capability_id: CapabilityId([id; 16]),
            grantor: admin(),
            grantee: service_id(client),
            resource: Resource { object_type: ObjectType::Service, object_id: "Keys".to_owned() },
            permissions,
            restrictions: None,
            parent: None,
        });
    }
}

/// Calls until it comes out like this: the fold is a moment behind the log.
async fn until<F: Future<Output = Result<(), Status>>>(holds: bool, call: impl Fn() -> F) {
    let wait = async {
        while call().await.is_ok() != holds {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("the fold catches up");
}

/// covers: CAP-03, CAP-12
#[tokio::test]
async fn a_client_calls_what_its_capability_permits_and_nothing_after_it_is_revoked() {
    let node = Node::start::<Keys>(None, genesis_plan()).await;
    assert!(node.info("terminal").await.is_ok() && node.sign("terminal").await.is_ok());
    node.revoke(capability_of("terminal"));
    until(false, || node.info("terminal")).await;
    assert_eq!(reason(node.sign("terminal").await), "acl_denied");
    assert!(node.derive("terminal").await.is_ok(), "what is public asks for no capability");
    assert!(node.info("network").await.is_ok(), "another client keeps its own");
    // Who is suspended holds nothing, and has it back afterwards.
    let change = |old, new| IdentityUpdated {
        identity: service_id("network"),
        change: IdentityChange::Status { old, new, by: admin(), reason: String::new() },
    };
    node.world.append(change(IdentityStatus::Active, IdentityStatus::Suspended));
    until(false, || node.info("network")).await;
    for _ in 0..kit::REFUSED_USES_MAX {
        assert_eq!(reason(node.info("network").await), "acl_denied");
    }
    node.world.append(change(IdentityStatus::Suspended, IdentityStatus::Active));
    until(true, || node.info("network")).await;
    // Read alone does not sign, and the operator needs no capability.
    node.grant(7, "terminal", Permissions { read: true, ..Permissions::default() });
    until(true, || node.info("terminal")).await;
    let refused = node.sign("terminal").await.unwrap_err();
    assert!(refused.message().contains("Keys") && refused.message().contains("execute"), "{refused}");
    assert!(node.info("admin").await.is_ok() && node.sign("admin").await.is_ok());
}

#[tokio::test]
async fn nobody_is_answered_from_an_older_log_than_they_have_seen() {
    let node = Node::start::<Keys>(None, genesis_plan()).await;
    // No waiting here: who knows of the revocation meets it.
    for (round, client) in ["terminal", "network"].into_iter().enumerate() {
        let seen = Seen::new();
        assert!(node.info_seeing(client, &seen).await.is_ok());
        seen.note(node.revoke(capability_of(client)).sequence);
        // On a machine with much to do the log comes later than anybody is let wait: told, and asked again.
        let answer = loop {
            match reason(node.info_seeing(client, &seen).await) {
                late if late == "Unavailable" => {}
                answer => break answer,
            }
        };
        assert_eq!(answer, "acl_denied", "round {round}");
        let later = Seen::new();
        assert_eq!(reason(node.info_seeing(client, &later).await), "acl_denied");
        assert!(later.get() >= seen.get(), "even a refusal tells how far the log goes: {later:?} {seen:?}");
    }
    // What does not come is not waited for without end.
    let head = Seen::new();
    assert!(node.info_seeing("admin", &head).await.is_ok());
    let next = Sequence(head.get().0 + 1);
    let (seen, began) = (Seen::new(), tokio::time::Instant::now());
    seen.note(next);
    assert_eq!(reason(node.info_seeing("terminal", &seen).await), "Unavailable");
    assert!(began.elapsed() >= FEED_WAIT_MAX);
    // The operator has more patience.
    let (operator, log) = (node.info_seeing("admin", &seen), async {
        tokio::time::sleep(2 * FEED_WAIT_MAX).await;
        node.grant(9, "terminal", Permissions::default());
    });
    let (answer, ()) = tokio::join!(operator, log);
    assert!(answer.is_ok(), "{answer:?}");
    assert!(seen.get() >= next);
}
