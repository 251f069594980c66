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
    let of = |id: IdentityId| wire::CapabilityFilter { holder: id.0.to_vec(), ..all() };
    assert_eq!(rig.list("admin", of(terminal)).await, [capability]);
    assert_eq!(rig.list("admin", of(admin())).await, []);
    let there = wire::CapabilityFilter { resource: Some(file("/srv/b")), ..all() };
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
    assert_eq!(reason(rig.client("admin", "grant").grant(request.clone()).await), "InvalidRequest");
    let half = wire::Restrictions { day_from_s: Some(1), ..Default::default() };
    let request = wire::GrantRequest { restrictions: Some(half), ..request };
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

impl Rig {
    async fn delegate(
        &self,
        client: &str,
        capability: Vec<u8>,
        to: IdentityId,
        permissions: wire::Permissions,
    ) -> Result<wire::Capability, Status> {
        let request = wire::DelegateRequest { capability, to: to.0.to_vec(), permissions: Some(permissions) };
        self.client(client, "delegate").delegate(request).await.map(Response::into_inner)
    }

    async fn chain(&self, client: &str, capability: Vec<u8>) -> Result<Vec<wire::Capability>, Status> {
        let request = wire::GetChainRequest { capability };
        self.client(client, "get_chain").get_chain(request).await.map(|list| list.into_inner().capabilities)
    }

    async fn limited(&self, to: IdentityId, restrictions: wire::Restrictions) -> wire::Capability {
        let request = wire::GrantRequest {
            resource: Some(file("/srv/a")),
            permissions: Some(wire::Permissions { delegate: true, ..READ }),
            grantee: to.0.to_vec(),
            restrictions: Some(restrictions),
            expires_at_ns: None,
        };
        self.client("admin", "grant").grant(request).await.unwrap().into_inner()
    }

    async fn r#use(&self, by: &str, identity: IdentityId, context: &[(&str, &str)]) -> String {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let request = wire::UseRequest {
            identity: identity.0.to_vec(),
            resource: Some(file("/srv/a")),
            permissions: Some(READ),
            context: context.iter().map(pair).collect(),
        };
        let reply = self.client(by, "use").r#use(request).await.unwrap().into_inner();
        assert_eq!(
            (reply.permitted, reply.capability.len()),
            (reply.refused.is_empty(), if reply.permitted { 16 } else { 0 })
        );
        if reply.permitted { "permitted".to_owned() } else { reply.refused }
    }
}

/// covers: CAP-15, CAP-19, CAP-24, CAP-28, CAP-36
#[tokio::test]
async fn a_holder_delegates_and_the_log_tells_from_which_source() {
    let rig = rig().await;
    let (terminal, network) = (service_id("terminal"), service_id("network"));
    let limits = wire::Restrictions { rate_count: Some(2), rate_window_ns: Some(1), ..Default::default() };
    let source = rig.limited(terminal, limits).await;
    let passed = rig.delegate("terminal", source.id.clone(), network, READ).await.unwrap();
    let expected = wire::Capability {
        id: passed.id.clone(),
        resource: source.resource.clone(),
        permissions: Some(READ),
        restrictions: source.restrictions.clone(),
        holder: network.0.to_vec(),
        grantor: terminal.0.to_vec(),
        parent: Some(source.id.clone()),
        generation: source.generation,
        created_at: passed.created_at.clone(),
    };
    assert_eq!(passed, expected);
    assert_ne!(passed.id, source.id);
    let entries = rig.node.world.payloads(10);
    let [_, (at, Payload::CapabilityGrant(grant))] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(passed.created_at, Some((*at).into()));
    let body = &grant.body;
    assert_eq!(body.parent.map(|id| id.0.to_vec()), Some(source.id.clone()));
    assert_eq!((body.capability_id.0.to_vec(), body.grantor), (passed.id.clone(), terminal));
    assert_eq!(rig.chain("network", passed.id.clone()).await.unwrap(), [passed.clone(), source.clone()]);
    assert_eq!(rig.chain("admin", passed.id.clone()).await.unwrap().len(), 2);
    assert_eq!(reason(rig.chain("network", source.id.clone()).await), "NotFound", "not its business");
    // What is held by another looks like what is not there.
    for id in [source.id.clone(), vec![9; 16]] {
        assert_eq!(reason(rig.delegate("admin", id, network, READ).await), "NotHolder");
    }
    assert_eq!(reason(rig.delegate("network", passed.id.clone(), terminal, READ).await), "CannotDelegate");
    let more = wire::Permissions { write: true, ..READ };
    assert_eq!(reason(rig.delegate("terminal", source.id.clone(), network, more).await), "CannotAmplify");
    rig.node.world.set_verdict(|request| !matches!(request.action, PolicyAction::DelegateCapability { .. }));
    assert_eq!(reason(rig.delegate("terminal", source.id.clone(), network, READ).await), "PolicyDenied");
    assert_eq!(rig.node.world.payloads(10).len(), 2);
    let reply = rig.revoke("admin", source.id.clone()).await.unwrap();
    assert!(reply.laggards.is_empty());
    let entries = rig.node.world.payloads(11);
    let [(_, Payload::CapabilityRevoke(revoke))] = &entries[..] else { panic!("one entry: {entries:?}") };
    assert_eq!((revoke.body.capability.0.to_vec(), revoke.body.by), (source.id, admin()));
    assert_eq!(revoke.body.reason, "over");
    assert_eq!(reason(rig.chain("network", passed.id).await), "NotFound");
}

/// covers: CAP-34
#[tokio::test]
async fn a_rate_and_a_context_are_enforced_by_use_alone() {
    let rig = rig().await;
    let terminal = service_id("terminal");
    let mut limits = wire::Restrictions {
        rate_count: Some(2),
        rate_window_ns: Some(3_600_000_000_000),
        ..wire::Restrictions::default()
    };
    limits.context.insert("room".to_owned(), "1".to_owned());
    assert_eq!(rig.r#use("network", terminal, &[]).await, "not_held");
    let capability = rig.limited(terminal, limits).await;
    assert!(!rig.held("network", terminal, READ).await, "no fold confirms it");
    assert_eq!(rig.r#use("network", terminal, &[]).await, "context");
    assert_eq!(rig.r#use("network", terminal, &[("room", "2")]).await, "context");
    // Anybody who owns objects asks; all of them count together.
    assert_eq!(rig.r#use("network", terminal, &[("room", "1")]).await, "permitted");
    assert_eq!(rig.r#use("terminal", terminal, &[("room", "1"), ("door", "2")]).await, "permitted");
    assert_eq!(rig.r#use("network", terminal, &[("room", "1")]).await, "rate");
    let network = service_id("network");
    rig.delegate("terminal", capability.id.clone(), network, READ).await.unwrap();
    assert_eq!(rig.r#use("admin", network, &[("room", "1")]).await, "rate", "its source is used up");
    let many: Vec<(String, String)> = (0..17).map(|n| (n.to_string(), String::new())).collect();
    let request = wire::UseRequest {
        identity: terminal.0.to_vec(),
        resource: Some(file("/srv/a")),
        permissions: Some(READ),
        context: many.into_iter().collect(),
    };
    assert_eq!(reason(rig.client("network", "use").r#use(request).await), "InvalidRequest");
    rig.revoke("admin", capability.id).await.unwrap();
    assert_eq!(rig.r#use("network", terminal, &[("room", "1")]).await, "not_held");
}

/// covers: CAP-35
#[tokio::test]
async fn what_has_expired_fails_without_an_entry() {
    let rig = rig().await;
    let terminal = service_id("terminal");
    let end = node::START.0 + 2_000_000_000;
    let limits = wire::Restrictions { not_after_ns: Some(end), ..Default::default() };
    rig.limited(terminal, limits).await;
    assert!(rig.held("network", terminal, READ).await);
    for _ in 0..500 {
        if !rig.held("network", terminal, READ).await {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(!rig.held("network", terminal, READ).await);
    assert_eq!(rig.r#use("network", terminal, &[]).await, "time");
    assert_eq!(rig.node.world.payloads(11).len(), 0);
}

/// covers: CAP-40
#[tokio::test]
async fn the_users_id_gives_nothing_and_the_administrator_is_an_identity() {
    let rig = rig().await;
    let (terminal, network) = (service_id("terminal"), service_id("network"));
    let granted = rig.grant("admin", terminal, READ).await.unwrap();
    // The same user of the machine, on the same socket: without a token nobody, with another's token that one.
    let bare = CapabilitiesClient::new(rig.node.calls("admin", "system.capability_service.revoke", None));
    let request = wire::RevokeRequest { id: granted.id.clone(), reason: String::new() };
    assert_eq!(reason(bare.clone().revoke(request.clone()).await), "auth_required");
    let token = rig.node.token(network, "admin");
    let calls = |verb: &str| {
        let capability = format!("system.capability_service.{verb}");
        CapabilitiesClient::new(rig.node.calls_as("admin", network, &capability, Some(&token)))
    };
    assert_eq!(reason(calls("revoke").revoke(request).await), "NotFound");
    let listed = calls("list").list(wire::CapabilityFilter::default()).await.unwrap().into_inner();
    assert!(listed.capabilities.iter().all(|held| held.holder == network.0.to_vec()), "{listed:?}");
    // And the administrator is asked about like anybody.
    rig.node.world.set_verdict(|request| request.requestor != admin());
    assert_eq!(reason(rig.revoke("admin", granted.id).await), "PolicyDenied");
    assert_eq!(reason(rig.grant("admin", terminal, READ).await), "PolicyDenied");
    assert!(!rig.held("admin", admin(), READ).await, "it holds nothing that it was not granted");
}

#[tokio::test]
async fn a_list_comes_in_pages_where_it_is_asked_to() {
    let rig = rig().await;
    let all = wire::CapabilityFilter { after: Some(vec![]), ..Default::default() };
    let first = rig.client("admin", "list").list(all.clone()).await.unwrap().into_inner();
    assert!(!first.more);
    let ids: Vec<Vec<u8>> = first.capabilities.iter().map(|held| held.id.clone()).collect();
    assert!(ids.is_sorted() && ids.len() == 2, "{ids:?}");
    let rest = wire::CapabilityFilter { after: Some(ids[0].clone()), ..all.clone() };
    let rest = rig.client("admin", "list").list(rest).await.unwrap().into_inner();
    assert_eq!(rest.capabilities, first.capabilities[1..]);
    let wrong = wire::CapabilityFilter { after: Some(vec![1; 15]), ..all };
    assert!(rig.client("admin", "list").list(wrong).await.is_err());
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
