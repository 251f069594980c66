//! The service over real sockets: a principal's life, and a token's.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, helpers too"
)]

#[path = "../../../../crates/kit/tests/support/node.rs"]
mod node;

use base::{IdentityId, KeyPath};
use chain::payload::{
    Payload,
    identity::{Identity, IdentityChange},
    policy::{ActionKind, PolicyAction},
};
use contracts::{
    identity::v1::{self as wire, identities_client::IdentitiesClient},
    keys::v1::{self as keys, keys_server::KeysServer},
};
use identity::IdentityService;
use kit::client::Calls;
use node::{Node, admin, genesis_plan, id_of, key_of, reason, service_id};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// Derives as the test's genesis does; asked by the identity service under its own name.
struct FakeKeys;

#[tonic::async_trait]
impl keys::keys_server::Keys for FakeKeys {
    async fn derive_public_key(
        &self,
        request: Request<keys::DerivePublicKeyRequest>,
    ) -> Result<Response<keys::PublicKey>, Status> {
        let context = request.metadata().get("bailiwick-context").unwrap().to_str().unwrap().to_owned();
        assert!(context.contains("system.keys.derive_public_key"), "{context}");
        assert!(context.contains(&service_id("identity").to_string()), "{context}");
        let path = request.into_inner().path;
        if path.ends_with("/away") {
            return Err(Status::unavailable("the boundary is away"));
        }
        Ok(Response::new(keys::PublicKey {
            key: key_of(&KeyPath::parse(&path).unwrap()).0.to_vec(),
            epoch: 0,
        }))
    }

    async fn sign(&self, _: Request<keys::SignRequest>) -> Result<Response<keys::SignResponse>, Status> {
        Err(Status::unimplemented(""))
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
        Err(Status::unimplemented(""))
    }

    async fn get_key_info(
        &self,
        _: Request<keys::GetKeyInfoRequest>,
    ) -> Result<Response<keys::KeyInfo>, Status> {
        Err(Status::unimplemented(""))
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

async fn start() -> Node {
    let node = Node::start::<IdentityService>(None, genesis_plan()).await;
    let listener = UnixListener::bind(node.folder.path().join("keys.sock")).unwrap();
    let server = tonic::transport::Server::builder().add_service(KeysServer::new(FakeKeys));
    tokio::spawn(async move { server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap() });
    node
}

fn client(node: &Node, client: &str, verb: &str, token: Option<&str>) -> IdentitiesClient<Calls> {
    IdentitiesClient::new(node.calls(client, &format!("system.identity.{verb}"), token))
}

/// A token for the operator, from the service itself.
async fn admin_token(node: &Node) -> wire::Token {
    let mut identities = client(node, "admin", "issue_token", None);
    identities.issue_token(wire::IssueTokenRequest::default()).await.unwrap().into_inner()
}

async fn create(node: &Node, token: &str, name: &str) -> Result<wire::Identity, Status> {
    let request = wire::CreateIdentityRequest {
        name: name.to_owned(),
        identity_type: "User".to_owned(),
        parent: id_of("/orbital/system").0.to_vec(),
        key_path: String::new(),
    };
    let mut identities = client(node, "admin", "create_identity", Some(token));
    identities.create_identity(request).await.map(Response::into_inner)
}

/// covers: IDN-03, IDN-04, IDN-05, IDN-10, IDN-13
#[tokio::test]
async fn an_identity_is_made_found_and_listed() {
    let node = start().await;
    let token = admin_token(&node).await.token;
    let alice = create(&node, &token, "alice").await.unwrap();
    let path = KeyPath::parse("/orbital/users/alice").unwrap();
    assert_eq!(
        (alice.key_path.as_str(), &alice.public_key),
        ("/orbital/users/alice", &key_of(&path).0.to_vec())
    );
    assert_eq!(alice.id, IdentityId::of_key(&key_of(&path)).0);
    let entries = node.world.payloads(88);
    assert_eq!(alice.created_at, Some(entries[0].0.into()), "it is the entry that made it");
    // Readable at once, by any client.
    let mut get = client(&node, "terminal", "get_identity", None);
    let got = get.get_identity(wire::GetIdentityRequest { id: alice.id.clone() }).await.unwrap().into_inner();
    assert_eq!(got, alice);
    assert_eq!(reason(get.get_identity(wire::GetIdentityRequest { id: vec![9; 32] }).await), "NotFound");
    let mut find = client(&node, "terminal", "find_identity", None);
    let found = |name: &str| wire::FindIdentityRequest { name: name.to_owned() };
    assert_eq!(find.find_identity(found("alice")).await.unwrap().into_inner().identity, Some(alice.clone()));
    assert_eq!(find.find_identity(found("bob")).await.unwrap().into_inner().identity, None);
    let mut list = client(&node, "terminal", "list_identities", None);
    let users = wire::IdentityFilter { identity_type: "User".to_owned(), ..Default::default() };
    let names = |list: wire::IdentityList| list.identities.into_iter().map(|i| i.name).collect::<Vec<_>>();
    assert_eq!(names(list.list_identities(users).await.unwrap().into_inner()), ["admin", "alice"]);
    let text = wire::IdentityFilter { text: "ali".to_owned(), ..Default::default() };
    assert_eq!(names(list.list_identities(text).await.unwrap().into_inner()), ["alice"]);
    assert_eq!(
        list.list_identities(wire::IdentityFilter::default()).await.unwrap().into_inner().identities.len(),
        17
    );
    let wrong = wire::IdentityFilter { status: "Sleeping".to_owned(), ..Default::default() };
    assert_eq!(list.list_identities(wrong).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

/// covers: IDN-32
#[tokio::test]
async fn what_policy_denies_or_keys_do_not_give_makes_nobody() {
    let node = start().await;
    let token = admin_token(&node).await.token;
    let mut bare = client(&node, "admin", "create_identity", None);
    assert_eq!(reason(bare.create_identity(wire::CreateIdentityRequest::default()).await), "auth_required");
    assert_eq!(reason(create(&node, &token, "away").await), "KeysUnavailable");
    assert_eq!(reason(create(&node, &token, "-").await), "InvalidName");
    node.world.set_verdict(|request| request.action.kind() != ActionKind::CreateIdentity);
    let denied = create(&node, &token, "bob").await.unwrap_err();
    let decision = node.world.payloads(85).pop().unwrap().0;
    assert_eq!(kit::error_info(&denied).unwrap().refusal, decision.sequence.0, "names its decision");
    assert_eq!(reason(Err::<(), _>(denied)), "PolicyDenied");
    let parent = id_of("/orbital/system");
    node.world.set_verdict(move |request| match &request.action {
        PolicyAction::CreateIdentity { parent: asked, name } => {
            *asked == parent && name == "bob" && request.requestor == admin()
        }
        _ => false,
    });
    assert!(create(&node, &token, "bob").await.is_ok(), "a refused name is free again");
    assert_eq!(node.world.payloads(88).len(), 1);
    assert_eq!(reason(create(&node, &token, "Bob").await), "NameTaken");
}

async fn who_am_i(node: &Node, client_name: &str, token: Option<&str>) -> Result<wire::Identity, Status> {
    client(node, client_name, "who_am_i", token)
        .who_am_i(wire::WhoAmIRequest {})
        .await
        .map(Response::into_inner)
}

async fn verify(node: &Node, token: &str, channel: &str) -> Result<wire::Identity, Status> {
    let request = wire::VerifyTokenRequest { token: token.to_owned(), channel: channel.to_owned() };
    let mut identities = client(node, "terminal", "verify_token", None);
    identities.verify_token(request).await.map(|reply| reply.into_inner().identity.unwrap())
}

/// covers: IDN-09, IDN-29
#[tokio::test]
async fn a_token_names_the_channels_own_identity_and_is_recorded_first() {
    let node = start().await;
    let mut identities = client(&node, "terminal", "issue_token", None);
    let request =
        wire::IssueTokenRequest { lifetime_s: 60, actions: vec!["sign".to_owned()], resources: vec![] };
    let token = identities.issue_token(request).await.unwrap().into_inner();
    assert_eq!(token.identity.as_ref().unwrap().name, "orbital.services.terminal");
    assert_eq!(token.expires_at_ns - token.issued_at_ns, 60_000_000_000);
    let recorded = node.world.payloads(89);
    let Payload::IdentityUpdated(update) = &recorded[0].1 else { panic!("{recorded:?}") };
    let IdentityChange::TokenIssued { token: id, channel, .. } = &update.body.change else {
        panic!("{update:?}")
    };
    assert_eq!((id.0.to_vec(), channel.as_str()), (token.id.clone(), "terminal"));
    // On its own channel, which is the one of the caller where none is named; nowhere else.
    assert_eq!(verify(&node, &token.token, "").await.unwrap().name, "orbital.services.terminal");
    assert_eq!(reason(verify(&node, &token.token, "network").await), "InvalidToken");
    let mut changed = token.token.clone();
    let last = changed.pop().unwrap();
    changed.push(if last == 'A' { 'B' } else { 'A' });
    assert_eq!(reason(verify(&node, &changed, "").await), "InvalidToken");
    assert!(who_am_i(&node, "terminal", Some(&token.token)).await.is_ok());
    assert_eq!(reason(who_am_i(&node, "network", Some(&token.token)).await), "auth_invalid");
    assert_eq!(who_am_i(&node, "network", None).await.unwrap().name, "orbital.services.network");
    assert_eq!(who_am_i(&node, "admin", None).await.unwrap().name, "admin");

    let mut narrow = client(&node, "terminal", "issue_token", Some(&token.token));
    let widened = narrow.issue_token(wire::IssueTokenRequest::default()).await;
    assert_eq!(widened.unwrap_err().code(), tonic::Code::InvalidArgument, "no token makes another");
    let long = wire::IssueTokenRequest { lifetime_s: 86_401, ..Default::default() };
    assert_eq!(reason(identities.issue_token(long).await), "InvalidRequest");
    let day = wire::IssueTokenRequest { lifetime_s: 86_400, ..Default::default() };
    assert!(identities.issue_token(day).await.is_ok());
    node.world.set_verdict(|_| false);
    assert_eq!(reason(identities.issue_token(wire::IssueTokenRequest::default()).await), "PolicyDenied");
}

/// covers: IDN-31, IDN-39, IDN-40
#[tokio::test]
async fn revocation_and_suspension_end_tokens() {
    let node = start().await;
    let mut identities = client(&node, "terminal", "issue_token", None);
    let token = identities.issue_token(wire::IssueTokenRequest::default()).await.unwrap().into_inner();
    let admin_token = admin_token(&node).await.token;
    let mut revoke = client(&node, "admin", "revoke_token", Some(&admin_token));
    let revoked =
        revoke.revoke_token(wire::RevokeTokenRequest { id: token.id.clone() }).await.unwrap().into_inner();
    assert_eq!(revoked.revoked_at, Some(node.world.payloads(89).pop().unwrap().0.into()));
    assert_eq!(reason(verify(&node, &token.token, "").await), "InvalidToken");
    assert_eq!(reason(revoke.revoke_token(wire::RevokeTokenRequest { id: token.id }).await), "NotFound");

    let other = identities.issue_token(wire::IssueTokenRequest::default()).await.unwrap().into_inner();
    let suspend = || wire::UpdateStatusRequest {
        id: service_id("terminal").0.to_vec(),
        status: "Suspended".to_owned(),
        reason: "odd".to_owned(),
    };
    let mut bare = client(&node, "admin", "update_status", None);
    assert_eq!(reason(bare.update_status(suspend()).await), "auth_required");
    let scoped = wire::IssueTokenRequest { actions: vec!["sign".to_owned()], ..Default::default() };
    let scoped =
        client(&node, "admin", "issue_token", None).issue_token(scoped).await.unwrap().into_inner().token;
    let mut outside = client(&node, "admin", "update_status", Some(&scoped));
    assert_eq!(reason(outside.update_status(suspend()).await), "auth_invalid", "outside the token's scope");
    let mut update = client(&node, "admin", "update_status", Some(&admin_token));
    let changed = update.update_status(suspend()).await.unwrap().into_inner();
    assert_eq!(changed.status, "Suspended");
    // Who is suspended is not served at all, and to everybody else its token says nothing any more.
    assert_eq!(reason(verify(&node, &other.token, "").await), "acl_denied");
    let asked = wire::VerifyTokenRequest { token: other.token, channel: "terminal".to_owned() };
    let mut network = client(&node, "network", "verify_token", None);
    assert_eq!(reason(network.verify_token(asked).await), "InvalidToken");
    assert_eq!(reason(who_am_i(&node, "terminal", None).await), "acl_denied");
    assert_eq!(reason(identities.issue_token(wire::IssueTokenRequest::default()).await), "acl_denied");
    assert_eq!(reason(update.update_status(suspend()).await), "InvalidStatus");
}

/// What stands in the log stands there; but nobody hears success while a service goes by what was before.
///
/// covers: IDN-40
#[tokio::test]
async fn what_takes_something_away_is_no_success_while_somebody_has_not_noticed() {
    let node = start().await;
    let mut identities = client(&node, "terminal", "issue_token", None);
    let token = identities.issue_token(wire::IssueTokenRequest::default()).await.unwrap().into_inner();
    let admin_token = admin_token(&node).await.token;
    let mut adding = client(&node, "admin", "add_credential", Some(&admin_token));
    let request = wire::AddCredentialRequest {
        identity: admin().0.to_vec(),
        name: "spare".to_owned(),
        kind: Some(wire::add_credential_request::Kind::RecoveryKey(Default::default())),
    };
    let credential = adding.add_credential(request).await.unwrap().into_inner().credential.unwrap().id;
    node.world.set_laggards(&["filesystem", "network"]);
    let late = |status: Status, what: &str| {
        assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
        let text = status.message();
        assert!(text.starts_with(what) && text.contains(": filesystem, network;"), "{text}");
    };

    let mut revoke = client(&node, "admin", "revoke_token", Some(&admin_token));
    let refused = revoke.revoke_token(wire::RevokeTokenRequest { id: token.id }).await.unwrap_err();
    let at = node.world.payloads(89).pop().unwrap().0.sequence;
    late(refused, &format!("the token is revoked (entry {at})"));
    assert_eq!(reason(verify(&node, &token.token, "").await), "InvalidToken", "it is revoked all the same");

    let mut revoke = client(&node, "admin", "revoke_credential", Some(&admin_token));
    let request =
        wire::RevokeCredentialRequest { identity: admin().0.to_vec(), credential, reason: "lost".to_owned() };
    late(revoke.revoke_credential(request).await.unwrap_err(), "the credential is revoked (entry");

    let mut update = client(&node, "admin", "update_status", Some(&admin_token));
    let change = |status: &str| wire::UpdateStatusRequest {
        id: service_id("terminal").0.to_vec(),
        status: status.to_owned(),
        reason: "odd".to_owned(),
    };
    late(update.update_status(change("Suspended")).await.unwrap_err(), "the status is changed (entry");
    node.world.set_laggards(&[]);
    assert_eq!(update.update_status(change("Active")).await.unwrap().into_inner().status, "Active");
}

#[tokio::test]
async fn with_a_key_that_genesis_does_not_pin_it_does_not_start() {
    let other = chain::genesis::GenesisPlan { identity_key: base::PublicKey([1; 32]), ..genesis_plan() };
    let node = Node::serve::<IdentityService>(None, other);
    assert!(node.begin("identity").await.is_err());
    let ended = tokio::time::timeout(std::time::Duration::from_secs(5), node.running).await.unwrap().unwrap();
    let error = ended.unwrap_err().to_string();
    assert!(error.contains("genesis pins") && error.contains("nothing is signed"), "{error}");
}

/// Identity as the log has it; keeps the conversion honest.
#[tokio::test]
async fn an_answer_is_the_registrys_identity() {
    let node = start().await;
    let answer = who_am_i(&node, "admin", None).await.unwrap();
    let identity = Identity::try_from(&answer).unwrap();
    assert_eq!((identity.id, identity.parent), (admin(), Some(id_of("/orbital/system"))));
}

async fn challenged(node: &Node, credential: &[u8]) -> wire::Challenge {
    let request = wire::RequestChallengeRequest { credential: credential.to_vec(), ..Default::default() };
    let mut identities = client(node, "admin", "request_challenge", None);
    identities.request_challenge(request).await.unwrap().into_inner()
}

fn answer(challenge: &wire::Challenge, key: &str) -> wire::AuthenticateRequest {
    let credential = challenge.credential.clone();
    let core = identity::core::Challenge {
        id: challenge.id.clone().try_into().unwrap(),
        nonce: challenge.nonce.clone().try_into().unwrap(),
        created_at: base::AxiomTime(challenge.created_at_ns),
        expires_at: base::AxiomTime(challenge.expires_at_ns),
        credential: base::CredentialId(credential.clone().try_into().unwrap()),
        origin: None,
    };
    let proof = identity::core::key_proof(&identity::core::parse_key(key).unwrap(), &core);
    let proof = wire::auth_proof::Proof::ApiKeyHash(proof.0.to_vec());
    wire::AuthenticateRequest {
        credential,
        challenge: Some(challenge.clone()),
        proof: Some(wire::AuthProof { proof: Some(proof) }),
        ..Default::default()
    }
}

/// covers: IDN-06, IDN-07, IDN-08, IDN-43, IDN-44
#[tokio::test]
async fn a_key_is_shown_once_logs_in_and_ends_with_its_tokens() {
    use wire::add_credential_request::Kind;
    let node = start().await;
    let token = admin_token(&node).await.token;
    let add = |kind| wire::AddCredentialRequest {
        identity: admin().0.to_vec(),
        name: "desk".to_owned(),
        kind: Some(kind),
    };
    let mut adding = client(&node, "admin", "add_credential", Some(&token));
    let passkey = adding.add_credential(add(Kind::Passkey(wire::CreatePasskey::default()))).await;
    assert_eq!(passkey.unwrap_err().code(), tonic::Code::InvalidArgument, "it answers no challenge");
    let everything = wire::Permission { action: "*".to_owned(), resource: "**".to_owned() };
    let api = Kind::ApiKey(wire::CreateApiKey { permissions: vec![everything], lifetime_s: 0 });
    let added = adding.add_credential(add(api)).await.unwrap().into_inner();
    let id = added.credential.as_ref().unwrap().id.clone();
    let mut listing = client(&node, "terminal", "list_credentials", None);
    let request = wire::ListCredentialsRequest { identity: admin().0.to_vec() };
    let listed = listing.list_credentials(request).await.unwrap().into_inner();
    assert_eq!(listed.credentials, [added.credential.clone().unwrap()]);
    let hex = added.key.strip_prefix("bwk_").unwrap();
    assert!(!format!("{:?}", node.world.payloads(90)).contains(hex), "only the hash is on record");

    let challenge = challenged(&node, &id).await;
    let mut login = client(&node, "admin", "authenticate", None);
    let got = login.authenticate(answer(&challenge, &added.key)).await.unwrap().into_inner();
    assert!(who_am_i(&node, "admin", Some(&got.token)).await.is_ok());
    let recorded = node.world.payloads(89).len();
    assert_eq!(reason(login.authenticate(answer(&challenge, &added.key)).await), "AuthenticationFailed");
    assert_eq!(node.world.payloads(89).len(), recorded + 1, "failures are recorded");
    let wrong = format!("bwk_{}", "00".repeat(32));
    let challenge = challenged(&node, &id).await;
    assert_eq!(reason(login.authenticate(answer(&challenge, &wrong)).await), "AuthenticationFailed");
    node.world.set_verdict(|request| request.action.kind() != ActionKind::Authenticate);
    let challenge = challenged(&node, &id).await;
    assert_eq!(reason(login.authenticate(answer(&challenge, &added.key)).await), "PolicyDenied");
    node.world.set_verdict(|_| true);

    let mut revoking = client(&node, "admin", "revoke_credential", Some(&token));
    let request = wire::RevokeCredentialRequest {
        identity: admin().0.to_vec(),
        credential: id.clone(),
        reason: "lost".to_owned(),
    };
    assert!(revoking.revoke_credential(request).await.unwrap().into_inner().revoked_at.is_some());
    assert_eq!(reason(who_am_i(&node, "admin", Some(&got.token)).await), "auth_invalid");
    assert!(who_am_i(&node, "admin", Some(&token)).await.is_ok(), "others still hold");
    let request = wire::RequestChallengeRequest { credential: id, ..Default::default() };
    let mut asking = client(&node, "admin", "request_challenge", None);
    assert_eq!(reason(asking.request_challenge(request).await), "CredentialNotFound");
}
