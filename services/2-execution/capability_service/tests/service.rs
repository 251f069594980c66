//! The service over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, helpers too"
)]

#[path = "../../../../crates/kit/tests/support/node.rs"]
mod node;

use base::IdentityId;
use capability_service::CapabilityService;
use chain::payload::{
    Payload,
    identity::{IdentityChange, IdentityStatus, IdentityUpdated},
    policy::PolicyAction,
};
use contracts::capability_service::v1::{self as wire, capabilities_client::CapabilitiesClient};
use kit::client::Calls;
use node::{Node, admin, genesis_plan, reason, service_id};
use tonic::{Response, Status};

struct Rig {
    node: Node,
    token: String,
}

async fn rig() -> Rig {
    let node = Node::start::<CapabilityService>(None, genesis_plan()).await;
    let token = node.token(admin(), "admin");
    Rig { node, token }
}

fn file(id: &str) -> wire::Resource {
    wire::Resource { object_type: "file".to_owned(), object_id: id.to_owned() }
}

const READ: wire::Permissions =
    wire::Permissions { read: true, write: false, execute: false, delegate: false, revoke: false };

impl Rig {
    fn client(&self, client: &str, verb: &str) -> CapabilitiesClient<Calls> {
        let token = (client == "admin").then_some(self.token.as_str());
        CapabilitiesClient::new(self.node.calls(client, &format!("system.capability_service.{verb}"), token))
    }

    async fn grant(
        &self,
        client: &str,
        to: IdentityId,
        permissions: wire::Permissions,
    ) -> Result<wire::Capability, Status> {
        let request = wire::GrantRequest {
            resource: Some(file("/srv/a")),
            permissions: Some(permissions),
            grantee: to.0.to_vec(),
            restrictions: None,
            expires_at_ns: None,
        };
        self.client(client, "grant").grant(request).await.map(Response::into_inner)
    }

    async fn held(&self, by: &str, identity: IdentityId, permissions: wire::Permissions) -> bool {
        let request = wire::CheckRequest {
            identity: identity.0.to_vec(),
            resource: Some(file("/srv/a")),
            permissions: Some(permissions),
        };
        self.client(by, "check").check(request).await.unwrap().into_inner().held
    }

    async fn list(&self, by: &str, filter: wire::CapabilityFilter) -> Vec<wire::Capability> {
        let mut listed = self.client(by, "list").list(filter).await.unwrap().into_inner().capabilities;
        // Beside what the clients of this service need to call it.
        listed.retain(|held| held.resource.as_ref().is_none_or(|object| object.object_type != "service"));
        listed
    }

    async fn revoke(&self, by: &str, id: Vec<u8>) -> Result<wire::RevokeReply, Status> {
        let request = wire::RevokeRequest { id, reason: "over".to_owned() };
        self.client(by, "revoke").revoke(request).await.map(Response::into_inner)
    }
}

/// covers: CAP-04, CAP-14, CAP-17, CAP-18
#[tokio::test]
async fn what_was_granted_is_held_and_listed() {
    let rig = rig().await;
    let terminal = service_id("terminal");
    assert!(!rig.held("network", terminal, READ).await);
    let capability = rig.grant("admin", terminal, READ).await.unwrap();
    let entries = rig.node.world.payloads(10);
    let [(at, Payload::CapabilityGrant(grant))] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(capability.created_at, Some((*at).into()));
    assert_eq!((capability.id.as_slice(), grant.body.grantor), (&grant.body.capability_id.0[..], admin()));
    assert!(rig.held("network", terminal, READ).await, "at once, for any client that asks");
    let write = wire::Permissions { write: true, ..READ };
    assert!(!rig.held("network", terminal, write).await);
    assert!(
        !rig.held("network", terminal, wire::Permissions { read: false, ..READ }).await,
        "nothing is no right"
    );
    assert!(!rig.held("network", service_id("network"), READ).await);
    assert_eq!(
        rig.node.world.payloads(10).len() + rig.node.world.payloads(11).len(),
        1,
        "checks leave no trace"
    );

    let all = wire::CapabilityFilter::default;
    assert_eq!(rig.list("admin", all()).await, std::slice::from_ref(&capability));
    assert_eq!(rig.list("terminal", all()).await, std::slice::from_ref(&capability));
    assert_eq!(rig.list("network", all()).await, [], "others' rights are none of its business");
    let of = |id: IdentityId| wire::CapabilityFilter { holder: id.0.to_vec(), resource: None };
    assert_eq!(rig.list("admin", of(terminal)).await, [capability]);
    assert_eq!(rig.list("admin", of(admin())).await, []);
    let there = wire::CapabilityFilter { holder: vec![], resource: Some(file("/srv/b")) };
    assert_eq!(rig.list("admin", there).await, []);
}

/// covers: CAP-27
#[tokio::test]
async fn policy_decides_and_the_operator_shows_a_token() {
    let rig = rig().await;
    let bare = CapabilitiesClient::new(rig.node.calls("admin", "system.capability_service.grant", None));
    assert_eq!(reason(bare.clone().grant(wire::GrantRequest::default()).await), "auth_required");
    let terminal = service_id("terminal");
    rig.node.world.set_verdict(move |request| {
        let to_terminal =
            matches!(&request.action, PolicyAction::DelegateCapability { to, .. } if *to == terminal);
        to_terminal && request.requestor == admin() && request.resource.id == "file:/srv/a"
    });
    assert!(rig.grant("admin", terminal, READ).await.is_ok());
    assert_eq!(reason(rig.grant("admin", service_id("network"), READ).await), "PolicyDenied");
    assert_eq!(reason(rig.grant("network", terminal, READ).await), "PolicyDenied");
    assert_eq!(rig.node.world.payloads(10).len(), 1);
    assert_eq!(reason(rig.grant("admin", IdentityId([9; 32]), READ).await), "UnknownIdentity");
    let (old, new) = (IdentityStatus::Active, IdentityStatus::Suspended);
    let change = IdentityChange::Status { old, new, by: admin(), reason: String::new() };
    rig.node.world.append(IdentityUpdated { identity: terminal, change });
    for _ in 0..200 {
        if !rig.held("network", terminal, READ).await {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(reason(rig.grant("admin", terminal, READ).await), "UnknownIdentity");
    let half = wire::Restrictions { rate_count: Some(1), ..Default::default() };
    let request = wire::GrantRequest {
        resource: Some(file("/a")),
        permissions: Some(READ),
        grantee: admin().0.to_vec(),
        restrictions: Some(half),
        expires_at_ns: None,
    };
    assert_eq!(reason(rig.client("admin", "grant").grant(request).await), "InvalidRequest");
}

/// covers: CAP-16, CAP-30, CAP-31, CAP-32
#[tokio::test]
async fn a_revocation_takes_everything_derived_and_names_laggards() {
    let rig = rig().await;
    let (terminal, network) = (service_id("terminal"), service_id("network"));
    let delegable = wire::Permissions { delegate: true, ..READ };
    let first = rig.grant("admin", terminal, delegable).await.unwrap();
    let second = rig.grant("terminal", network, READ).await.unwrap();
    assert_eq!(second.parent, Some(first.id.clone()));
    assert_eq!(
        reason(rig.grant("terminal", network, wire::Permissions { write: true, ..READ }).await),
        "CannotAmplify"
    );
    assert_eq!(reason(rig.grant("network", terminal, READ).await), "CannotDelegate");
    assert_eq!(reason(rig.revoke("network", second.id.clone()).await), "CannotRevoke");
    assert_eq!(
        reason(rig.revoke("network", first.id.clone()).await),
        "NotFound",
        "it is not the caller's business"
    );
    assert_eq!(reason(rig.revoke("network", vec![9; 16]).await), "NotFound");

    rig.node.world.set_laggards(&["filesystem"]);
    let reply = rig.revoke("admin", first.id.clone()).await.unwrap();
    assert_eq!(reply.laggards, ["filesystem"]);
    let entries = rig.node.world.payloads(11);
    let [(at, Payload::CapabilityRevoke(revoke))] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(reply.revoked_at, Some((*at).into()));
    assert_eq!((revoke.body.by, revoke.body.reason.as_str()), (admin(), "over"));
    assert_eq!(rig.node.world.awaited(), [at.sequence.0], "followers were waited for");
    for holder in [terminal, network] {
        assert!(!rig.held("network", holder, READ).await, "when it was answered it holds");
    }
    assert_eq!(reason(rig.revoke("admin", first.id).await), "NotFound", "a second revocation finds nothing");
}

#[tokio::test]
async fn a_revocation_that_axiom_does_not_confirm_says_so() {
    let rig = rig().await;
    let granted = rig.grant("admin", service_id("terminal"), READ).await.unwrap();
    std::fs::remove_file(rig.node.folder.path().join("axiom.sock")).unwrap();
    let reply = rig.revoke("admin", granted.id).await.unwrap();
    assert!(reply.revoked_at.is_some(), "it stands in the log");
    assert_eq!(reply.laggards, ["axiom"]);
}
