use std::sync::Arc;

use base::{AxiomTime, EntryKey, Hash, KeyPath, PublicKey, TokenId, TraceId};
use chain::payload::{
    Body, Envelope,
    identity::{IdentityChange, IdentityCreated, IdentityStatus, IdentityType, IdentityUpdated},
    policy::ResourceType,
    service::Genesis,
};
use contracts::axiom::v1::Entry;
use ed25519_dalek::SigningKey;
use tonic::Code;

use super::*;
use crate::{
    context::OperationContext,
    error::IntoRefusal,
    feed::FeedEntry,
    token::{LIFE_NS_DEFAULT, ScopeAction, TokenScope, issue},
};

const ADMIN: IdentityId = IdentityId([1; 32]);
const TERMINAL: IdentityId = IdentityId([2; 32]);
const ALICE: IdentityId = IdentityId([3; 32]);
/// Axiom time of all entries; the clock stands there too.
const START: AxiomTime = AxiomTime(1_000_000_000_000);

fn issuer() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn identity(id: IdentityId, path: &str) -> IdentityCreated {
    IdentityCreated {
        identity_id: id,
        name: path.rsplit('/').next().unwrap().to_owned(),
        identity_type: IdentityType::User,
        parent: None,
        public_key: PublicKey(id.0),
        key_path: KeyPath::parse(path).unwrap(),
    }
}

fn apply<T: Body>(local: &LocalState, body: T) {
    let envelope = Envelope { submitter: ADMIN, key: EntryKey([1; 16]), authorization: None, body };
    let payload = envelope.to_bytes().unwrap();
    let timestamp_ns = START.0;
    let entry =
        Entry { hash: vec![0; 32], entry_type: T::ENTRY_TYPE, payload, timestamp_ns, ..Entry::default() };
    local.apply(&FeedEntry::read_for_test(entry)).unwrap();
}

fn node() -> (LocalState, AxiomClock) {
    let local = LocalState::new();
    let any = PublicKey([7; 32]);
    apply(
        &local,
        Genesis {
            version: 1,
            image_hash: Hash::ZERO,
            initial_capabilities: vec![],
            genesis_time: START,
            node_name: "desk".to_owned(),
            node_key: any,
            sequencer_key: any,
            policy_key: any,
            identity_key: PublicKey(issuer().verifying_key().to_bytes()),
            identities: vec![
                identity(ADMIN, "/orbital/users/admin"),
                identity(TERMINAL, "/orbital/services/terminal"),
            ],
            admin: ADMIN,
            admin_uid: 1000,
            rules: vec![],
        },
    );
    apply(&local, identity(ALICE, "/orbital/users/alice"));
    let clock = AxiomClock::new();
    clock.tell(START.saturating_add(1), crate::clock::boot_time_ns());
    (local, clock)
}

fn claims(identity: IdentityId, channel: &str) -> Claims {
    Claims {
        id: TokenId([4; 16]),
        identity,
        issued_at: START.saturating_add(1),
        expires_at: START.saturating_add(LIFE_NS_DEFAULT),
        scope: TokenScope::default(),
        channel: channel.to_owned(),
        authentication: None,
    }
}

fn token(identity: IdentityId, channel: &str) -> String {
    issue(&issuer(), claims(identity, channel)).unwrap().text
}

fn call(channel: ChannelKind, client: &str, claimed: IdentityId, token: Option<&str>) -> Request<()> {
    let mut request = Request::new(());
    let context = OperationContext::of_service(claimed, "system.keys.sign", TraceId([5; 16])).unwrap();
    request.extensions_mut().insert(Arc::new(context));
    request.extensions_mut().insert(Caller {
        channel,
        client: client.into(),
        peer_uid: None,
        peer_pid: None,
    });
    if let Some(token) = token {
        request.metadata_mut().insert(TOKEN_METADATA, format!("Bearer {token}").parse().unwrap());
    }
    request
}

fn prove(request: &Request<()>, token_on_admin: bool) -> Result<IdentityId, KitError> {
    let (local, clock) = node();
    requestor_in(&local, &clock, request, token_on_admin).map(|requestor| requestor.id())
}

#[test]
fn the_socket_names_the_requestor_and_the_context_must_agree() {
    use ChannelKind::{Admin, Append, Edge};
    assert_eq!(prove(&call(Edge, "terminal", TERMINAL, None), true), Ok(TERMINAL));
    assert_eq!(prove(&call(Admin, "admin", ADMIN, None), false), Ok(ADMIN));
    for (channel, client, claimed) in [(Edge, "terminal", ADMIN), (Admin, "admin", TERMINAL)] {
        let error = prove(&call(channel, client, claimed, None), false).unwrap_err();
        assert_eq!(error.reason(), "envelope_invalid", "{client}");
    }
    for (channel, client) in
        [(Edge, "stranger"), (Edge, "admin"), (Edge, "../users/alice"), (Append, "policy")]
    {
        let error = prove(&call(channel, client, ADMIN, None), false).unwrap_err();
        assert!(matches!(error, KitError::NobodyThere(_)), "{client}: {error}");
    }
}

/// covers: IDN-29
#[test]
fn a_token_counts_on_its_channel_alone_and_names_who_stands_behind_it() {
    use ChannelKind::{Admin, Edge};
    let error = prove(&call(Admin, "admin", ADMIN, None), true).unwrap_err();
    assert_eq!((error.reason(), error.code()), ("auth_required", Code::Unauthenticated));
    assert_eq!(prove(&call(Admin, "admin", ADMIN, Some(&token(ADMIN, "admin"))), true), Ok(ADMIN));
    assert_eq!(prove(&call(Edge, "terminal", ALICE, Some(&token(ALICE, "terminal"))), true), Ok(ALICE));
    let foreign = issue(&SigningKey::from_bytes(&[8; 32]), claims(ADMIN, "admin")).unwrap().text;
    for (channel, client, token, expected) in [
        (Edge, "terminal", token(ADMIN, "admin"), TokenError::WrongChannel),
        (Admin, "admin", token(ADMIN, "terminal"), TokenError::WrongChannel),
        (Admin, "admin", foreign, TokenError::BadSignature),
        (Admin, "admin", "nonsense".to_owned(), TokenError::Malformed("text")),
    ] {
        // A token that does not hold is refused where none is needed, too.
        let error = prove(&call(channel, client, ADMIN, Some(&token)), false).unwrap_err();
        assert_eq!(error, KitError::TokenRefused(expected));
    }
    let mut twice = call(Admin, "admin", ADMIN, Some(&token(ADMIN, "admin")));
    twice.metadata_mut().append(TOKEN_METADATA, "Bearer x".parse().unwrap());
    assert!(matches!(prove(&twice, true), Err(KitError::TokenRefused(TokenError::Malformed(_)))));
    let mut other = call(Admin, "admin", ADMIN, None);
    other.metadata_mut().insert(TOKEN_METADATA, "Basic x".parse().unwrap());
    assert!(matches!(prove(&other, false), Err(KitError::TokenRefused(TokenError::Malformed(_)))));
}

/// covers: IDN-30, IDN-40
#[test]
fn a_silent_feed_a_revocation_and_a_suspension_end_a_token() {
    let (local, clock) = node();
    let request = call(ChannelKind::Admin, "admin", ADMIN, Some(&token(ADMIN, "admin")));
    assert!(requestor_in(&local, &clock, &request, true).is_ok());
    let deaf = AxiomClock::new();
    let error = requestor_in(&local, &deaf, &request, true).unwrap_err();
    assert_eq!(error, KitError::TokenRefused(TokenError::Expired));
    let change = IdentityChange::TokenRevoked { token: TokenId([4; 16]), by: ADMIN };
    apply(&local, IdentityUpdated { identity: ADMIN, change });
    let error = requestor_in(&local, &clock, &request, true).unwrap_err();
    assert_eq!(error, KitError::TokenRefused(TokenError::Revoked));

    let alone = call(ChannelKind::Edge, "terminal", TERMINAL, None);
    let (old, new) = (IdentityStatus::Active, IdentityStatus::Suspended);
    let change = IdentityChange::Status { old, new, by: ADMIN, reason: String::new() };
    apply(&local, IdentityUpdated { identity: TERMINAL, change });
    assert_eq!(requestor_in(&local, &clock, &alone, false), Err(KitError::NotActive(TERMINAL)));
}

/// covers: IDN-31
#[tokio::test]
async fn a_request_outside_the_tokens_scope_never_reaches_policy() {
    let (local, clock) = node();
    let mut narrow = claims(ADMIN, "admin");
    narrow.scope = TokenScope {
        actions: vec![ScopeAction::Kind(ActionKind::DelegateCapability)],
        resources: vec!["capability:file:/srv/**".to_owned()],
    };
    let text = issue(&issuer(), narrow).unwrap().text;
    let request = call(ChannelKind::Admin, "admin", ADMIN, Some(&text));
    let requestor = requestor_in(&local, &clock, &request, true).unwrap();
    let resource = |id: &str| ResourceRef { resource_type: ResourceType::Capability, id: id.to_owned() };
    assert_eq!(requestor.permit(ActionKind::DelegateCapability, &resource("file:/srv/a")), Ok(()));
    let outside = Err(KitError::TokenRefused(TokenError::ScopeExceeded));
    assert_eq!(requestor.permit(ActionKind::DelegateCapability, &resource("file:/etc/a")), outside);
    assert_eq!(requestor.permit(ActionKind::RevokeCapability, &resource("file:/srv/a")), outside);
    let node = Node::new("keys", std::path::Path::new("/nonexistent"));
    let action = PolicyAction::RevokeCapability { capability: base::CapabilityId([1; 16]) };
    assert_eq!(
        requestor.ask(&node, action, resource("file:/srv/a")).unwrap_err().code(),
        Code::Unauthenticated
    );
    let action = PolicyAction::DelegateCapability { capability: base::CapabilityId([1; 16]), to: ALICE };
    assert_eq!(requestor.ask(&node, action, resource("file:/srv/a")).unwrap().requestor, ADMIN);
}
