//! Credentials: made, proved, used up, expired, revoked.

use base::{CredentialId, Signature};
use chain::payload::{
    identity::{CredentialBody, Permission},
    policy::{ActionKind, ResourceRef, ResourceType},
};
use ed25519_dalek::Signer;
use kit::token::ScopeAction;

use super::*;
use crate::core::{
    AuthProof, CHALLENGE_LIFE_NS, CHALLENGES_PER_CHANNEL_MAX, CREDENTIALS_PER_IDENTITY_MAX, Challenge,
    PERMISSIONS_MAX, challenge_hash,
    credentials::Credential,
    failures::{FAILURE_WINDOW_NS, FAILURES_PER_IDENTITY_MAX},
    key_hash, key_proof, key_text, parse_key,
};

#[path = "login_limit_tests.rs"]
mod limits;
#[path = "passkey_tests.rs"]
mod passkeys;

const KEY: [u8; 32] = [5; 32];
const CREDENTIAL: CredentialId = CredentialId([6; 16]);

fn permission(action: Option<ActionKind>, resource: &str) -> Permission {
    Permission { action, resource: resource.to_owned() }
}

fn api_key(permissions: Vec<Permission>, life_ns: Option<u64>) -> NewCredential {
    NewCredential::ApiKey { key_hash: key_hash(&KEY), permissions, life_ns }
}

fn recovery_key() -> NewCredential {
    NewCredential::RecoveryKey { key_hash: key_hash(&KEY) }
}

fn add_request(core: &IdentityCore, kind: NewCredential) -> AddCredentialRequest {
    let admin = id_of(core, "admin");
    AddCredentialRequest {
        requestor: admin,
        bound: None,
        proved_by: None,
        identity: admin,
        credential: CREDENTIAL,
        name: "desk".to_owned(),
        kind,
    }
}

fn added(core: &mut IdentityCore, request: AddCredentialRequest) -> Credential {
    let act = only_act(&core.step(NOW, Event::AddCredential { id: ID, request }));
    let effects = core.step(NOW, Event::Acted { id: ID, result: Ok(at(50)) });
    fold(core, 50, NOW, &act.proposal);
    match &effects[..] {
        [Effect::Reply { result: Ok(Reply::Credential(credential)), .. }] => (**credential).clone(),
        other => panic!("{other:?}"),
    }
}

fn with(kind: NewCredential) -> IdentityCore {
    let mut core = core();
    let request = add_request(&core, kind);
    added(&mut core, request);
    core
}

fn challenge(core: &mut IdentityCore, now: AxiomTime, n: u64) -> Challenge {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    let ask = Event::RequestChallenge {
        id: ID,
        credential: CREDENTIAL,
        adding: false,
        origin: None,
        channel: CHANNEL.to_owned(),
        random: (id, [n as u8; 32]),
    };
    match &core.step(now, ask)[..] {
        [Effect::Reply { result: Ok(Reply::Challenge(challenge)), .. }] => (**challenge).clone(),
        other => panic!("{other:?}"),
    }
}

fn answer(challenge: &Challenge) -> AuthenticateRequest {
    AuthenticateRequest {
        credential: CREDENTIAL,
        challenge: challenge.clone(),
        proof: AuthProof::ApiKeyHash(key_proof(&KEY, challenge)),
        channel: CHANNEL.to_owned(),
        actions: vec![],
        resources: vec![],
        life_ns: None,
        token: TokenId([7; 16]),
    }
}

/// What came of a request, whatever its id.
fn outcome(effects: &[Effect]) -> Result<Act, IdentityError> {
    match effects {
        [Effect::Act { act, .. }] => Ok((**act).clone()),
        [Effect::Reply { result: Err(error), .. }] => Err(error.clone()),
        other => panic!("{other:?}"),
    }
}

fn authenticate(core: &mut IdentityCore, now: AxiomTime, request: AuthenticateRequest) -> Vec<Effect> {
    core.step(now, Event::Authenticate { id: ID, request })
}

/// The refusal, recorded first.
fn failed(core: &mut IdentityCore, now: AxiomTime, request: AuthenticateRequest) -> IdentityError {
    let effects = authenticate(core, now, request);
    let [Effect::Record { update, .. }] = &effects[..] else { panic!("not recorded: {effects:?}") };
    assert!(matches!(&update.change, IdentityChange::AuthenticationFailed { credential, channel, .. }
        if *credential == Some(CREDENTIAL) && channel == CHANNEL));
    only_error(&core.step(now, Event::Recorded { id: ID }))
}

/// Goes through the log; the token's claims.
fn logged_in(core: &mut IdentityCore, now: AxiomTime, request: AuthenticateRequest) -> Claims {
    let act = only_act(&authenticate(core, now, request));
    let effects = core.step(now, Event::Acted { id: ID, result: Ok(at(60)) });
    fold(core, 60, now, &act.proposal);
    match &effects[..] {
        [Effect::Reply { result: Ok(Reply::Token(claims)), .. }] => (**claims).clone(),
        other => panic!("{other:?}"),
    }
}

/// covers: IDN-06, IDN-18, IDN-21, IDN-32, IDN-49
#[test]
fn adding_is_decided_and_only_a_hash_is_recorded() {
    let mut core = core();
    let request = add_request(&core, recovery_key());
    let admin = request.identity;
    let act = only_act(&core.step(NOW, Event::AddCredential { id: ID, request }));
    assert_eq!(act.action, PolicyAction::AddCredential { identity: admin });
    let Proposal::CredentialAdded(recorded) = &act.proposal else { panic!("{act:?}") };
    assert_eq!(recorded.body, CredentialBody::RecoveryKey { key_hash: key_hash(&KEY), used: false });
    let bytes = base::cbor::encode(recorded);
    assert!(!bytes.windows(32).any(|window| window == KEY), "the key itself is nowhere");
    core.step(NOW, Event::Acted { id: ID, result: Ok(at(50)) });
    assert!(core.registry().credentials().get(&CREDENTIAL).is_err(), "the log says so first");
    fold(&mut core, 50, NOW, &act.proposal);
    let credential = core.registry().credentials().get(&CREDENTIAL).unwrap();
    assert_eq!((credential.created_at, credential.name.as_str()), (at(50), "desk"));
    assert_eq!(core.registry().get(&admin).unwrap().credentials[0].id, CREDENTIAL);
}

/// covers: IDN-08, IDN-24, IDN-44, IDN-47
#[test]
fn a_login_is_challenged_verified_decided_recorded_and_answered_in_this_order() {
    let mut core = with(api_key(vec![permission(None, "**")], None));
    let admin = id_of(&core, "admin");
    let challenge = challenge(&mut core, NOW, 1);
    let act = only_act(&authenticate(&mut core, NOW, answer(&challenge)));
    assert_eq!((act.action, act.requestor), (PolicyAction::Authenticate { identity: admin }, admin));
    let Proposal::Updated(update) = &act.proposal else { panic!("{:?}", act.proposal) };
    assert!(matches!(update.change, IdentityChange::Authenticated { credential: CREDENTIAL, .. }));
    let effects = core.step(NOW, Event::Acted { id: ID, result: Ok(at(60)) });
    let [Effect::Reply { result: Ok(Reply::Token(claims)), .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    let authentication = claims.authentication.as_ref().unwrap();
    assert_eq!((authentication.credential, authentication.entry), (CREDENTIAL, at(60)));
    let denied = ActFailure::Denied(Sequence(9));
    let challenge = self::challenge(&mut core, NOW, 2);
    only_act(&authenticate(&mut core, NOW, answer(&challenge)));
    let effects = core.step(NOW, Event::Acted { id: ID, result: Err(denied) });
    assert_eq!(only_error(&effects), IdentityError::Act(denied), "no token without a decision");
}

/// covers: IDN-42, IDN-43
#[test]
fn a_challenge_works_once_before_its_end_on_its_channel() {
    let mut core = with(api_key(vec![permission(None, "**")], None));
    let end = NOW.saturating_add(CHALLENGE_LIFE_NS);
    let first = challenge(&mut core, NOW, 1);
    assert_eq!((first.expires_at, first.credential, first.origin.as_ref()), (end, CREDENTIAL, None));
    logged_in(&mut core, AxiomTime(end.0 - 1), answer(&first));
    assert_eq!(failed(&mut core, NOW, answer(&first)), IdentityError::ChallengeUnknown, "a replay");
    let second = challenge(&mut core, NOW, 2);
    assert_eq!(failed(&mut core, end, answer(&second)), IdentityError::ChallengeExpired);
    let third = challenge(&mut core, NOW, 3);
    let wrong = AuthenticateRequest { proof: AuthProof::ApiKeyHash(Hash([1; 32])), ..answer(&third) };
    assert_eq!(failed(&mut core, NOW, wrong), IdentityError::ProofRefused);
    assert_eq!(
        failed(&mut core, NOW, answer(&third)),
        IdentityError::ChallengeUnknown,
        "spent by the failure"
    );
    let fourth = challenge(&mut core, NOW, 4);
    let elsewhere = AuthenticateRequest { channel: "network".to_owned(), ..answer(&fourth) };
    let effects = authenticate(&mut core, NOW, elsewhere);
    assert!(matches!(effects[..], [Effect::Record { .. }]), "{effects:?}");
}

/// covers: IDN-43
#[test]
fn no_channel_takes_all_challenges() {
    let mut core = with(recovery_key());
    let ask = |core: &mut IdentityCore, now, n: usize, channel: &str| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        let random = (id, [0; 32]);
        let (channel, adding, origin) = (channel.to_owned(), false, None);
        let credential = CREDENTIAL;
        core.step(now, Event::RequestChallenge { id: ID, credential, adding, origin, channel, random })
    };
    for n in 0..CHALLENGES_PER_CHANNEL_MAX {
        assert!(matches!(ask(&mut core, NOW, n, "a")[..], [Effect::Reply { result: Ok(_), .. }]));
    }
    let full = only_error(&ask(&mut core, NOW, 9_000, "a"));
    assert_eq!(full, IdentityError::Busy(CHALLENGES_PER_CHANNEL_MAX));
    assert!(matches!(ask(&mut core, NOW, 9_001, "b")[..], [Effect::Reply { result: Ok(_), .. }]));
    let later = NOW.saturating_add(CHALLENGE_LIFE_NS);
    assert!(matches!(ask(&mut core, later, 9_002, "a")[..], [Effect::Reply { result: Ok(_), .. }]));
}

/// covers: IDN-21
#[test]
fn the_hash_in_the_log_and_an_old_proof_prove_nothing() {
    let mut core = with(recovery_key());
    let stored = key_hash(&KEY);
    let one = challenge(&mut core, NOW, 1);
    let by_hash = Hash(*blake3::keyed_hash(&stored.0, &challenge_hash(&one).0).as_bytes());
    for proof in [stored, by_hash, Hash(KEY), key_proof(&stored.0, &one)] {
        let one = challenge(&mut core, NOW, 10);
        let request = AuthenticateRequest { proof: AuthProof::ApiKeyHash(proof), ..answer(&one) };
        assert!(!matches!(authenticate(&mut core, NOW, request)[..], [Effect::Act { .. }]));
        core.step(NOW, Event::Recorded { id: ID });
    }
    let two = challenge(&mut core, NOW, 2);
    let old = AuthenticateRequest { proof: answer(&one).proof, ..answer(&two) };
    let effects = authenticate(&mut core, NOW, old);
    assert!(!matches!(effects[..], [Effect::Act { .. }]), "{effects:?}");
    let text = key_text(&KEY);
    assert_eq!(*parse_key(&format!("{}\n", *text)).unwrap(), KEY);
    assert!(parse_key(&text[1..]).is_none() && parse_key(&text[..text.len() - 1]).is_none());
}

/// covers: IDN-23, IDN-18
#[test]
fn a_recovery_key_works_once() {
    let mut core = with(recovery_key());
    let (first, second) = (challenge(&mut core, NOW, 1), challenge(&mut core, NOW, 2));
    let act = only_act(&authenticate(&mut core, NOW, answer(&first)));
    let meanwhile = core.step(NOW, Event::Authenticate { id: RequestId(2), request: answer(&second) });
    assert!(matches!(meanwhile[..], [Effect::Reply { result: Err(IdentityError::Busy(1)), .. }]));
    core.step(NOW, Event::Acted { id: ID, result: Ok(at(60)) });
    fold(&mut core, 60, NOW, &act.proposal);
    let credential = core.registry().credentials().get(&CREDENTIAL).unwrap();
    assert!(matches!(credential.body, CredentialBody::RecoveryKey { used: true, .. }));
    let third = challenge(&mut core, NOW, 3);
    assert_eq!(failed(&mut core, NOW, answer(&third)), IdentityError::RecoveryKeyUsed);
}

/// covers: IDN-19, IDN-22
#[test]
fn an_api_key_expires_in_axiom_time_and_its_tokens_with_it() {
    let mut core = with(api_key(vec![permission(None, "**")], Some(1_000)));
    let one = challenge(&mut core, NOW, 1);
    let claims = logged_in(&mut core, AxiomTime(NOW.0 + 999), answer(&one));
    assert_eq!(claims.expires_at, AxiomTime(NOW.0 + 1_000));
    let two = challenge(&mut core, NOW, 2);
    assert_eq!(failed(&mut core, AxiomTime(NOW.0 + 1_000), answer(&two)), IdentityError::CredentialExpired);
    let mut core = with(api_key(vec![permission(None, "**")], None));
    let much_later = AxiomTime(u64::MAX / 2);
    let three = challenge(&mut core, much_later, 3);
    logged_in(&mut core, much_later, answer(&three));
}

/// covers: IDN-07, IDN-32
#[test]
fn a_revoked_credential_and_its_tokens_are_worth_nothing() {
    let mut core = with(api_key(vec![permission(None, "**")], None));
    let admin = id_of(&core, "admin");
    let (one, two) = (challenge(&mut core, NOW, 1), challenge(&mut core, NOW, 2));
    let claims = logged_in(&mut core, NOW, answer(&one));
    let text = token::issue(&signer(), claims).unwrap().text;
    assert!(core.registry().verify_token(&text, NOW, CHANNEL).is_ok());
    let request = RevokeCredentialRequest {
        requestor: admin,
        identity: admin,
        credential: CREDENTIAL,
        reason: "lost".to_owned(),
    };
    let under_way = only_act(&authenticate(&mut core, NOW, answer(&two)));
    let revoke = Event::RevokeCredential { id: RequestId(2), request: request.clone() };
    let effects = core.step(NOW, revoke);
    let [Effect::Act { act, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(act.action, PolicyAction::RevokeCredential { identity: admin, credential: CREDENTIAL });
    core.step(NOW, Event::Acted { id: RequestId(2), result: Ok(at(70)) });
    let late = core.step(NOW, Event::Acted { id: ID, result: Ok(at(71)) });
    assert_eq!(only_error(&late), IdentityError::CredentialNotFound(CREDENTIAL), "no token any more");
    fold(&mut core, 70, NOW, &act.proposal);
    fold(&mut core, 71, NOW, &under_way.proposal);
    assert!(core.registry().verify_token(&text, NOW, CHANNEL).is_err());
    assert!(core.registry().get(&admin).unwrap().credentials.is_empty());
    let again = core.step(NOW, Event::RevokeCredential { id: ID, request });
    assert_eq!(only_error(&again), IdentityError::CredentialNotFound(CREDENTIAL));
    let mut readded = add_request(&core, recovery_key());
    readded.name = String::new();
    let refused = core.step(NOW, Event::AddCredential { id: ID, request: readded });
    assert!(matches!(only_error(&refused), IdentityError::Busy(_)), "the id is not used again");
}

/// covers: IDN-40
#[test]
fn a_suspended_identity_does_not_log_in() {
    let mut core = with(recovery_key());
    let one = challenge(&mut core, NOW, 1);
    set_status(&mut core, "admin", IdentityStatus::Suspended, NOW);
    let admin = id_of(&core, "admin");
    assert_eq!(failed(&mut core, NOW, answer(&one)), IdentityError::NotActive(admin));
}

/// covers: IDN-20, IDN-25, IDN-26
#[test]
fn a_derived_key_signs_its_challenge_and_no_other() {
    let key = SigningKey::from_bytes(&[3; 32]);
    let mut core = core();
    let path = core.registry().find("admin").unwrap().key_path.child("login").unwrap();
    let request = add_request(&core, NewCredential::DerivedKey { key_path: Some(path.clone()) });
    let effects = core.step(NOW, Event::AddCredential { id: ID, request });
    assert_eq!(effects, [Effect::AskKeys { id: ID, path }]);
    let public = PublicKey(key.verifying_key().to_bytes());
    let act = only_act(&core.step(NOW, Event::KeyDerived { id: ID, result: Ok(public) }));
    core.step(NOW, Event::Acted { id: ID, result: Ok(at(50)) });
    fold(&mut core, 50, NOW, &act.proposal);
    let (one, two) = (challenge(&mut core, NOW, 1), challenge(&mut core, NOW, 2));
    let signed = AuthProof::Signature(Signature(key.sign(&challenge_hash(&one).0).to_bytes()));
    let other = AuthenticateRequest { proof: signed.clone(), ..answer(&two) };
    assert_eq!(failed(&mut core, NOW, other), IdentityError::ProofRefused);
    logged_in(&mut core, NOW, AuthenticateRequest { proof: signed, ..answer(&one) });
    let foreign = KeyPath::parse("/orbital/services/policy").unwrap();
    let mut request = add_request(&core, NewCredential::DerivedKey { key_path: Some(foreign) });
    request.credential = CredentialId([8; 16]);
    let refused = core.step(NOW, Event::AddCredential { id: ID, request });
    assert_eq!(only_error(&refused), IdentityError::NotBelowParent);
}

/// covers: IDN-44
#[test]
fn failures_do_not_fill_the_log() {
    let mut core = with(recovery_key());
    let mut fail = |now: AxiomTime, n: u64| {
        let one = challenge(&mut core, now, n);
        let wrong = AuthenticateRequest { proof: AuthProof::ApiKeyHash(Hash([1; 32])), ..answer(&one) };
        let effects = authenticate(&mut core, now, wrong);
        core.step(now, Event::Recorded { id: ID });
        match &effects[..] {
            [Effect::Record { update, .. }] => Some(format!("{:?}", update.change)),
            [Effect::Reply { result: Err(IdentityError::ProofRefused), .. }] => None,
            other => panic!("{other:?}"),
        }
    };
    for n in 0..u64::from(FAILURES_PER_IDENTITY_MAX) {
        assert!(fail(NOW, n).is_some());
    }
    assert!(fail(NOW, 100).is_none() && fail(NOW, 101).is_none(), "only counted");
    let later = fail(NOW.saturating_add(FAILURE_WINDOW_NS), 102).unwrap();
    assert!(later.contains("2 others were only counted"), "{later}");
}

#[test]
fn credentials_and_their_parts_are_bounded() {
    let mut core = core();
    let mut try_add = |n: u8, kind: NewCredential, name: String| {
        let mut request = add_request(&core, kind);
        (request.credential, request.name) = (CredentialId([n; 16]), name);
        let effects = core.step(NOW, Event::AddCredential { id: ID, request });
        if let [Effect::Act { act, .. }] = &effects[..] {
            core.step(NOW, Event::Acted { id: ID, result: Ok(at(50)) });
            fold(&mut core, 50, NOW, &act.proposal);
            return None;
        }
        Some(only_error(&effects))
    };
    let many = |n: usize| vec![permission(None, "**"); n];
    let name = |n: usize| "n".repeat(n);
    assert_eq!(try_add(1, api_key(many(PERMISSIONS_MAX), None), name(64)), None);
    assert_eq!(
        try_add(2, api_key(many(PERMISSIONS_MAX + 1), None), name(1)),
        Some(IdentityError::Permissions)
    );
    assert_eq!(try_add(2, api_key(many(0), None), name(1)), Some(IdentityError::Permissions));
    let long = |n: usize| api_key(vec![permission(None, &"p".repeat(n))], None);
    assert_eq!(try_add(2, long(256), name(1)), None);
    assert_eq!(try_add(3, long(257), name(1)), Some(IdentityError::Permissions));
    assert_eq!(try_add(3, recovery_key(), name(65)), Some(IdentityError::CredentialName));
    for n in 3..=CREDENTIALS_PER_IDENTITY_MAX as u8 {
        assert_eq!(try_add(n, recovery_key(), name(1)), None, "{n}");
    }
    let full = Some(IdentityError::Busy(CREDENTIALS_PER_IDENTITY_MAX));
    assert_eq!(try_add(200, recovery_key(), name(1)), full);
}

fn actions() -> impl Strategy<Value = Option<ActionKind>> {
    prop_oneof![
        Just(None),
        Just(Some(ActionKind::Sign)),
        Just(Some(ActionKind::AddCredential)),
        Just(Some(ActionKind::Decrypt))
    ]
}

fn patterns() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("**".to_owned()),
        Just("key:/a/**".to_owned()),
        Just("key:/a/*".to_owned()),
        Just("key:/a/b".to_owned()),
        Just("key:/a/b/c".to_owned()),
        Just("key:/?/b".to_owned()),
    ]
}

fn permissions() -> impl Strategy<Value = Vec<Permission>> {
    let one = (actions(), patterns()).prop_map(|(action, resource)| Permission { action, resource });
    proptest::collection::vec(one, 1..4)
}

/// Whether one of these permits it, asked one by one.
fn permitted(permissions: &[Permission], action: ActionKind, resource: &ResourceRef) -> bool {
    permissions.iter().any(|one| {
        let action_of = one.action.map_or(ScopeAction::Any, ScopeAction::Kind);
        TokenScope { actions: vec![action_of], resources: vec![one.resource.clone()] }
            .permits(action, resource)
    })
}

proptest! {
    /// A key makes a token, the token another key, that one a token, and so on: none permits what its origin does not.
    ///
    /// covers: IDN-31
    #[test]
    fn no_sequence_of_credentials_gives_more_than_the_first(
        first in permissions(),
        steps in proptest::collection::vec((permissions(), any::<bool>(), actions(), patterns()), 1..5),
    ) {
        let mut core = with(api_key(first.clone(), None));
        let mut credential = CREDENTIAL;
        for (n, (wanted, narrow, action, resource)) in steps.into_iter().enumerate() {
            let mut id = [0; 16];
            id[0] = n as u8;
            let ask = Event::RequestChallenge {
                id: ID, credential, adding: false, origin: None, channel: CHANNEL.to_owned(), random: (id, [n as u8; 32]),
            };
            let effects = core.step(NOW, ask);
            let [Effect::Reply { result: Ok(Reply::Challenge(challenge)), .. }] = &effects[..] else {
                panic!("{effects:?}")
            };
            let mut request = answer(challenge);
            request.credential = credential;
            request.token = TokenId([n as u8; 16]);
            if narrow {
                request.actions = vec![action.map_or(ScopeAction::Any, ScopeAction::Kind)];
                request.resources = vec![resource];
            }
            let effects = authenticate(&mut core, NOW, request);
            let [Effect::Act { act, .. }] = &effects[..] else { break };
            let reply = core.step(NOW, Event::Acted { id: ID, result: Ok(at(60)) });
            fold(&mut core, 60, NOW, &act.proposal);
            let [Effect::Reply { result: Ok(Reply::Token(claims)), .. }] = &reply[..] else { panic!("{reply:?}") };
            for kind in [ActionKind::Sign, ActionKind::AddCredential, ActionKind::Decrypt, ActionKind::Connect] {
                for path in ["/a/b", "/a/b/c", "/z/b", "/z", "/a/../b"] {
                    let resource = ResourceRef { resource_type: ResourceType::Key, id: path.to_owned() };
                    prop_assert!(
                        !claims.scope.permits(kind, &resource) || permitted(&first, kind, &resource),
                        "{kind:?} {path} by {:?} from {first:?}", claims.scope
                    );
                }
            }
            let mut add = add_request(&core, api_key(wanted, None));
            add.bound = Some(claims.scope.clone());
            add.proved_by = Some(credential);
            add.credential = CredentialId([100 + n as u8; 16]);
            let next = add.credential;
            let unbounded = add.bound.as_ref().unwrap().is_unbounded();
            let mut recovery = add.clone();
            recovery.kind = recovery_key();
            if !unbounded {
                let refused = core.step(NOW, Event::AddCredential { id: ID, request: recovery });
                prop_assert_eq!(only_error(&refused), IdentityError::WiderThanToken);
            }
            let effects = core.step(NOW, Event::AddCredential { id: ID, request: add });
            if let [Effect::Act { act, .. }] = &effects[..] {
                core.step(NOW, Event::Acted { id: ID, result: Ok(at(50)) });
                fold(&mut core, 50, NOW, &act.proposal);
                credential = next;
            }
        }
    }
}
