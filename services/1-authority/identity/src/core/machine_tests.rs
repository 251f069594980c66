use base::{EntryKey, Hash, Sequence};
use chain::{
    genesis::{self, GenesisPlan},
    payload::{Body, Envelope},
};
use ed25519_dalek::SigningKey;
use kit::token;
use proptest::prelude::*;

use super::*;
use crate::core::IdentityFilter;

#[path = "limit_tests.rs"]
mod limits;
#[path = "login_tests.rs"]
mod logins;
#[path = "naming_tests.rs"]
mod naming;
#[path = "reservation_tests.rs"]
mod reservations;
#[path = "saved_tests.rs"]
mod saved;

const NOW: AxiomTime = AxiomTime(1_000_000_000_000);
const ID: RequestId = RequestId(1);
const CHANNEL: &str = "terminal/uid-1000";

fn signer() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

/// Stands for `keys`: some key for every path, always the same.
fn key_of(path: &KeyPath) -> PublicKey {
    PublicKey(Hash::of(path.to_string().as_bytes()).0)
}

fn at(sequence: u64) -> AxiomRef {
    AxiomRef { sequence: Sequence(sequence), hash: Hash([8; 32]) }
}

fn envelope<T: Body>(body: T) -> Box<Envelope<T>> {
    Box::new(Envelope { submitter: IdentityId([0; 32]), key: EntryKey([0; 16]), authorization: None, body })
}

fn core() -> IdentityCore {
    let unused = PublicKey([1; 32]);
    let plan = GenesisPlan {
        image_hash: Hash::ZERO,
        genesis_time: AxiomTime(1),
        node_name: "desk".to_owned(),
        node_key: unused,
        sequencer_key: unused,
        policy_key: unused,
        identity_key: PublicKey(signer().verifying_key().to_bytes()),
        admin_uid: 1000,
        rules: vec![],
        initial_capabilities: vec![],
    };
    let genesis = genesis::build(plan, |path| Some(key_of(path))).unwrap();
    let mut core = IdentityCore::new();
    core.apply(at(0), AxiomTime(1), &Payload::Genesis(envelope(genesis)));
    core
}

fn id_of(core: &IdentityCore, name: &str) -> IdentityId {
    core.registry().find(name).unwrap().id
}

fn request(
    core: &IdentityCore,
    name: &str,
    identity_type: IdentityType,
    parent: &str,
) -> CreateIdentityRequest {
    CreateIdentityRequest {
        requestor: id_of(core, "admin"),
        name: name.to_owned(),
        identity_type,
        parent: id_of(core, parent),
        key_path: None,
    }
}

fn fold(core: &mut IdentityCore, sequence: u64, time: AxiomTime, proposal: &Proposal) {
    let payload = match proposal.clone() {
        Proposal::Created(created) => Payload::IdentityCreated(envelope(created)),
        Proposal::Updated(update) => Payload::IdentityUpdated(envelope(update)),
        Proposal::CredentialAdded(added) => Payload::CredentialAdded(envelope(added)),
        Proposal::CredentialRevoked(revoked) => Payload::CredentialRevoked(envelope(revoked)),
    };
    core.apply(at(sequence), time, &payload);
}

fn only_error(effects: &[Effect]) -> IdentityError {
    match effects {
        [Effect::Reply { id: ID, result: Err(error) }] => error.clone(),
        other => panic!("not a refusal: {other:?}"),
    }
}

fn only_act(effects: &[Effect]) -> Act {
    match effects {
        [Effect::Act { id: ID, act }] => (**act).clone(),
        other => panic!("not an act: {other:?}"),
    }
}

fn refused(core: &mut IdentityCore, request: CreateIdentityRequest) -> IdentityError {
    only_error(&core.step(NOW, Event::Create { id: ID, request }))
}

/// Creates and folds; what `create_identity` answers.
fn created(core: &mut IdentityCore, request: CreateIdentityRequest) -> Identity {
    let effects = core.step(NOW, Event::Create { id: ID, request });
    let [Effect::AskKeys { id: ID, path }] = &effects[..] else { panic!("{effects:?}") };
    let result = Ok(key_of(path));
    let act = only_act(&core.step(NOW, Event::KeyDerived { id: ID, result }));
    let sequence = 100 + core.registry().len() as u64;
    let effects = core.step(NOW, Event::Acted { id: ID, result: Ok(at(sequence)) });
    fold(core, sequence, NOW, &act.proposal);
    let [Effect::Reply { id: ID, result: Ok(Reply::Identity(identity)) }] = &effects[..] else {
        panic!("{effects:?}")
    };
    (**identity).clone()
}

/// covers: IDN-11, IDN-12, IDN-13, IDN-35
#[test]
fn creating_asks_keys_then_policy_and_answers_with_the_recorded_identity() {
    let mut core = core();
    let request = request(&core, "alice", IdentityType::User, "orbital.system");
    let effects = core.step(NOW, Event::Create { id: ID, request: request.clone() });
    let path = KeyPath::parse("/orbital/users/alice").unwrap();
    assert_eq!(effects, [Effect::AskKeys { id: ID, path: path.clone() }]);
    let key = key_of(&path);
    let act = only_act(&core.step(NOW, Event::KeyDerived { id: ID, result: Ok(key) }));
    let (parent, name) = (request.parent, "alice".to_owned());
    assert_eq!(act.action, PolicyAction::CreateIdentity { parent, name: name.clone() });
    assert_eq!(act.requestor, request.requestor);
    assert_eq!(core.registry().find("alice"), None, "nothing exists before the log says so");
    let effects = core.step(NOW, Event::Acted { id: ID, result: Ok(at(7)) });
    let expected = Identity {
        id: IdentityId(Hash::of(&key.0).0),
        name,
        identity_type: IdentityType::User,
        parent: Some(parent),
        public_key: key,
        key_path: path,
        created_at: at(7),
        status: IdentityStatus::Active,
        credentials: vec![],
    };
    assert_eq!(effects, [Effect::Reply { id: ID, result: Ok(Reply::Identity(Box::new(expected.clone()))) }]);
    fold(&mut core, 7, NOW, &act.proposal);
    assert_eq!(core.registry().get(&expected.id), Ok(&expected));
}

/// covers: IDN-04, IDN-05, IDN-36
#[test]
fn identities_are_found_by_id_and_by_full_name() {
    let core = core();
    let axiom = core.registry().find("orbital.services.axiom").unwrap();
    assert_eq!(core.registry().get(&axiom.id), Ok(axiom));
    assert_eq!(core.registry().find("Orbital.Services.Axiom"), Some(axiom));
    assert_eq!(core.registry().find("axiom"), None, "a short name is not a name");
    let unknown = IdentityId([77; 32]);
    assert_eq!(core.registry().get(&unknown), Err(IdentityError::NotFound(unknown)));
}

/// covers: IDN-10, IDN-14, IDN-15, IDN-16
#[test]
fn a_filter_selects_and_children_are_told() {
    let mut core = core();
    let founders = core.registry().len();
    let org = request(&core, "example.org", IdentityType::Organization, "orbital.system");
    let org = created(&mut core, org);
    let alice = request(&core, "alice", IdentityType::User, "example.org");
    let alice = created(&mut core, alice);
    assert_eq!((alice.name.as_str(), alice.parent), ("alice@example.org", Some(org.id)));
    assert_eq!(alice.key_path.to_string(), "/orbital/orgs/example.org/users/alice");
    let names = |filter: IdentityFilter| {
        core.registry().list(&filter).map(|identity| identity.name.clone()).collect::<Vec<_>>()
    };
    let all = IdentityFilter::default();
    assert_eq!(names(all.clone()).len(), founders + 2);
    assert_eq!(
        names(IdentityFilter { identity_type: Some(IdentityType::User), ..all.clone() }),
        ["admin", "alice@example.org"]
    );
    assert_eq!(names(IdentityFilter { parent: Some(org.id), ..all.clone() }), ["alice@example.org"]);
    assert_eq!(
        names(IdentityFilter { name_prefix: "orbital.services.p".to_owned(), ..all.clone() }).len(),
        2
    );
    assert!(names(IdentityFilter { status: Some(IdentityStatus::Revoked), ..all }).is_empty());
    assert_eq!(core.registry().children(&org.id).map(|child| child.id).collect::<Vec<_>>(), [alice.id]);
    let types = [
        IdentityType::System,
        IdentityType::Organization,
        IdentityType::User,
        IdentityType::Service,
        IdentityType::Node,
    ];
    let statuses = [IdentityStatus::Active, IdentityStatus::Suspended, IdentityStatus::Revoked];
    // Exhaustive on purpose: a sixth type or a fourth status does not compile here.
    types.iter().for_each(|t| match t {
        IdentityType::System | IdentityType::Organization | IdentityType::User => {}
        IdentityType::Service | IdentityType::Node => {}
    });
    statuses.iter().for_each(|s| match s {
        IdentityStatus::Active | IdentityStatus::Suspended | IdentityStatus::Revoked => {}
    });
}

/// covers: IDN-16, IDN-36, IDN-37, IDN-53
#[test]
fn what_may_not_be_created_is_refused_before_anyone_is_asked() {
    let mut core = core();
    let base = |core: &IdentityCore| request(core, "alice", IdentityType::User, "orbital.system");
    let with = |core: &mut IdentityCore, change: &dyn Fn(&mut CreateIdentityRequest)| {
        let mut request = base(core);
        change(&mut request);
        refused(core, request)
    };
    let stranger = IdentityId([9; 32]);
    assert_eq!(with(&mut core, &|r| r.parent = stranger), IdentityError::NotFound(stranger));
    assert_eq!(with(&mut core, &|r| r.requestor = stranger), IdentityError::NotFound(stranger));
    assert!(matches!(with(&mut core, &|r| r.name.clear()), IdentityError::Name(_)));
    assert!(matches!(with(&mut core, &|r| r.name = "x".repeat(65)), IdentityError::Name(_)));
    assert_eq!(
        with(&mut core, &|r| r.name = "Admin".to_owned()),
        IdentityError::NameTaken("Admin".to_owned())
    );
    let reserved = "orbital.services.evil".to_owned();
    assert_eq!(with(&mut core, &|r| r.name = reserved.clone()), IdentityError::NameTaken(reserved.clone()));
    let root = |r: &mut CreateIdentityRequest| r.identity_type = IdentityType::System;
    assert!(matches!(with(&mut core, &root), IdentityError::ParentType(..)), "there is one root");
    let path = |text: &str| Some(KeyPath::parse(text).unwrap());
    let aside = with(&mut core, &|r| r.key_path = path("/orbital/users/alice"));
    assert_eq!(aside, IdentityError::NotBelowParent);
    assert_eq!(with(&mut core, &|r| r.key_path = path("/orbital/system")), IdentityError::NotBelowParent);
    assert_eq!(core.pending(), 0);
    let mut below = base(&core);
    below.key_path = path("/orbital/system/alice");
    assert_eq!(created(&mut core, below).key_path.to_string(), "/orbital/system/alice");
}

#[test]
fn two_requests_under_way_cannot_take_one_name_and_a_failure_frees_it() {
    let mut core = core();
    let request = request(&core, "alice", IdentityType::User, "orbital.system");
    let second = |core: &mut IdentityCore| {
        let effects = core.step(NOW, Event::Create { id: RequestId(2), request: request.clone() });
        match &effects[..] {
            [Effect::Reply { result: Err(error), .. }] => Some(error.clone()),
            _ => None,
        }
    };
    let taken = Some(IdentityError::NameTaken("alice".to_owned()));
    core.step(NOW, Event::Create { id: ID, request: request.clone() });
    assert_eq!(second(&mut core), taken);
    let key = key_of(&KeyPath::parse("/orbital/users/alice").unwrap());
    let act = only_act(&core.step(NOW, Event::KeyDerived { id: ID, result: Ok(key) }));
    assert_eq!(second(&mut core), taken);
    core.step(NOW, Event::Acted { id: ID, result: Ok(at(7)) });
    assert_eq!(second(&mut core), taken, "committed, but not folded yet");
    fold(&mut core, 7, NOW, &act.proposal);
    assert_eq!(second(&mut core), taken);

    let failures: [fn(&mut IdentityCore) -> IdentityError; 2] = [
        |core| only_error(&core.step(NOW, Event::KeyDerived { id: ID, result: Err("locked".to_owned()) })),
        |core| {
            core.step(NOW, Event::KeyDerived { id: ID, result: Ok(PublicKey([3; 32])) });
            let result = Err(ActFailure::Denied(Sequence(5)));
            only_error(&core.step(NOW, Event::Acted { id: ID, result }))
        },
    ];
    for failure in failures {
        let mut core = self::core();
        core.step(NOW, Event::Create { id: ID, request: request.clone() });
        let error = failure(&mut core);
        assert!(matches!(error, IdentityError::Keys(_) | IdentityError::Act(_)), "{error}");
        assert_eq!(second(&mut core), None, "the name is free again");
    }
}

fn status_request(core: &IdentityCore, name: &str, status: IdentityStatus) -> UpdateStatusRequest {
    let requestor = id_of(core, "admin");
    UpdateStatusRequest { requestor, identity: id_of(core, name), status, reason: "test".to_owned() }
}

fn set_status(core: &mut IdentityCore, name: &str, status: IdentityStatus, time: AxiomTime) {
    let request = status_request(core, name, status);
    let act = only_act(&core.step(NOW, Event::UpdateStatus { id: ID, request }));
    let done = core.step(NOW, Event::Acted { id: ID, result: Ok(at(50)) });
    assert_eq!(done, [Effect::Reply { id: ID, result: Ok(Reply::Done) }]);
    fold(core, 50, time, &act.proposal);
    assert_eq!(core.registry().find(name).unwrap().status, status);
}

/// covers: IDN-38, IDN-39
#[test]
fn status_changes_only_along_the_legal_ways_and_through_policy() {
    use IdentityStatus::{Active, Revoked, Suspended};
    let legal = [(Active, Suspended), (Active, Revoked), (Suspended, Active), (Suspended, Revoked)];
    for from in [Active, Suspended, Revoked] {
        for to in [Active, Suspended, Revoked] {
            let mut core = core();
            let name = "orbital.services.network";
            if from != Active {
                set_status(&mut core, name, from, NOW);
            }
            let request = status_request(&core, name, to);
            let identity = request.identity;
            let effects = core.step(NOW, Event::UpdateStatus { id: ID, request: request.clone() });
            if legal.contains(&(from, to)) {
                let act = only_act(&effects);
                assert_eq!(act.action, PolicyAction::ModifyIdentity { identity });
                assert_eq!(core.registry().get(&identity).unwrap().status, from, "only the log changes it");
                let effects = core.step(NOW, Event::UpdateStatus { id: RequestId(2), request });
                let busy = Err(IdentityError::Busy(1));
                assert_eq!(effects, [Effect::Reply { id: RequestId(2), result: busy }]);
            } else {
                assert_eq!(only_error(&effects), IdentityError::StatusChange(from, to));
            }
        }
    }
    let mut core = core();
    let root = status_request(&core, "orbital.system", Suspended);
    assert_eq!(
        only_error(&core.step(NOW, Event::UpdateStatus { id: ID, request: root })),
        IdentityError::Root
    );
    let mut wordy = status_request(&core, "admin", Suspended);
    wordy.reason = "x".repeat(REASON_BYTES_MAX + 1);
    let error = only_error(&core.step(NOW, Event::UpdateStatus { id: ID, request: wordy }));
    assert_eq!(error, IdentityError::Reason { limit: REASON_BYTES_MAX });
}

fn token_request(core: &IdentityCore, life_ns: Option<u64>) -> IssueTokenRequest {
    let admin = id_of(core, "admin");
    let scope = TokenScope::default();
    let token = TokenId([4; 16]);
    IssueTokenRequest {
        requestor: admin,
        identity: admin,
        channel: CHANNEL.to_owned(),
        scope,
        life_ns,
        token,
    }
}

/// Issues and folds; the token's text.
fn issued(core: &mut IdentityCore) -> String {
    let request = token_request(core, None);
    let identity = request.identity;
    let act = only_act(&core.step(NOW, Event::IssueToken { id: ID, request }));
    assert_eq!(act.action, PolicyAction::Authenticate { identity });
    let effects = core.step(NOW, Event::Acted { id: ID, result: Ok(at(60)) });
    fold(core, 60, NOW, &act.proposal);
    let [Effect::Reply { result: Ok(Reply::Token(claims)), .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    token::issue(&signer(), (**claims).clone()).unwrap().text
}

/// covers: IDN-28, IDN-29, IDN-30
#[test]
fn a_token_is_issued_after_its_record_and_proves_its_identity() {
    let mut core = core();
    let text = issued(&mut core);
    let verify =
        |text: &str, now, channel| core.registry().verify_token(text, now, channel).map(|i| i.name.clone());
    assert_eq!(verify(&text, NOW, CHANNEL), Ok("admin".to_owned()));
    assert_eq!(verify(&text, NOW.saturating_add(LIFE_NS_DEFAULT), CHANNEL), Err(TokenError::Expired.into()));
    assert_eq!(verify(&text, NOW, "other"), Err(TokenError::WrongChannel.into()));
    let forged = token::issue(
        &SigningKey::from_bytes(&[8; 32]),
        Claims {
            id: TokenId([4; 16]),
            identity: id_of(&core, "admin"),
            issued_at: NOW,
            expires_at: NOW.saturating_add(1000),
            scope: TokenScope::default(),
            channel: CHANNEL.to_owned(),
            authentication: None,
        },
    );
    assert_eq!(verify(&forged.unwrap().text, NOW, CHANNEL), Err(TokenError::BadSignature.into()));
    assert_eq!(Registry::default().verify_token(&text, NOW, CHANNEL), Err(TokenError::BadSignature.into()));
}

#[test]
fn a_tokens_life_is_bounded() {
    let mut core = core();
    for (life, legal) in [(0, false), (1, true), (LIFE_NS_MAX, true), (LIFE_NS_MAX + 1, false)] {
        let request = token_request(&core, Some(life));
        let effects = core.step(NOW, Event::IssueToken { id: ID, request });
        assert_eq!(matches!(effects[..], [Effect::Act { .. }]), legal, "{life}");
        core.step(NOW, Event::Acted { id: ID, result: Err(ActFailure::NotCommitted) });
    }
}

/// covers: IDN-40
#[test]
fn suspension_ends_tokens_and_bars_the_requestor() {
    let mut core = core();
    let text = issued(&mut core);
    let later = NOW.saturating_add(1);
    set_status(&mut core, "admin", IdentityStatus::Suspended, later);
    let check = |core: &IdentityCore| core.registry().verify_token(&text, later, CHANNEL).map(|i| i.id);
    assert_eq!(check(&core), Err(TokenError::Revoked.into()));
    let admin = id_of(&core, "admin");
    let request = token_request(&core, None);
    let error = only_error(&core.step(NOW, Event::IssueToken { id: ID, request }));
    assert_eq!(error, IdentityError::NotActive(admin));
    let child = request_by(&core, "orbital.system", "bob", "admin");
    assert_eq!(refused(&mut core, child), IdentityError::NotActive(admin), "no children below the suspended");
}

fn request_by(core: &IdentityCore, requestor: &str, name: &str, parent: &str) -> CreateIdentityRequest {
    let requestor = id_of(core, requestor);
    CreateIdentityRequest { requestor, ..request(core, name, IdentityType::User, parent) }
}

#[test]
fn a_revoked_token_is_refused_and_an_unknown_one_cannot_be_revoked() {
    let mut core = core();
    let text = issued(&mut core);
    let admin = id_of(&core, "admin");
    let unknown = Event::RevokeToken { id: ID, requestor: admin, token: TokenId([5; 16]) };
    assert_eq!(only_error(&core.step(NOW, unknown)), IdentityError::TokenNotFound(TokenId([5; 16])));
    let revoke = Event::RevokeToken { id: ID, requestor: admin, token: TokenId([4; 16]) };
    let act = only_act(&core.step(NOW, revoke));
    assert!(core.registry().verify_token(&text, NOW, CHANNEL).is_ok());
    fold(&mut core, 70, NOW, &act.proposal);
    let refused = core.registry().verify_token(&text, NOW, CHANNEL).map(|i| i.id);
    assert_eq!(refused, Err(TokenError::Revoked.into()));
}

#[test]
fn entries_that_contradict_the_registry_change_nothing() {
    let mut core = core();
    let admin = core.registry().find("admin").unwrap().clone();
    let entry = |name: &str, path: &str, parent, id: Option<IdentityId>| {
        let key_path = KeyPath::parse(path).unwrap();
        let public_key = key_of(&key_path);
        let identity_id = id.unwrap_or(IdentityId::of_key(&public_key));
        let name = name.to_owned();
        Proposal::Created(IdentityCreated {
            identity_id,
            name,
            identity_type: IdentityType::User,
            parent,
            public_key,
            key_path,
        })
    };
    let status = |old, new| {
        let change = IdentityChange::Status { old, new, by: admin.id, reason: String::new() };
        Proposal::Updated(IdentityUpdated { identity: admin.id, change })
    };
    let before = core.registry().clone();
    for (n, bad) in [
        entry("ADMIN", "/a", Some(admin.id), None),
        entry("b", "/orbital/users/admin", Some(admin.id), None),
        entry("b", "/b", Some(IdentityId([1; 32])), None),
        entry("b", "/b", None, None),
        entry("b", "/b", Some(admin.id), Some(IdentityId([1; 32]))),
        status(IdentityStatus::Suspended, IdentityStatus::Active),
    ]
    .iter()
    .enumerate()
    {
        fold(&mut core, 80, NOW, bad);
        assert_eq!(core.registry().ignored(), n as u64 + 1, "{bad:?}");
    }
    assert_eq!(core.registry().len(), before.len());
    assert_eq!(core.registry().get(&admin.id), Ok(&admin));
}

#[test]
fn requests_under_way_are_bounded() {
    let mut core = core();
    for n in 0..PENDING_MAX as u64 {
        let request = request(&core, &format!("u{n}"), IdentityType::User, "orbital.system");
        assert!(matches!(
            core.step(NOW, Event::Create { id: RequestId(n + 10), request })[..],
            [Effect::AskKeys { .. }]
        ));
    }
    let last = request(&core, "last", IdentityType::User, "orbital.system");
    assert_eq!(refused(&mut core, last), IdentityError::Busy(PENDING_MAX));
}

proptest! {
    /// Whatever is asked in whatever order, the tree stays a tree and every id is the hash of its key.
    #[test]
    fn the_registry_keeps_its_rules(names in prop::collection::vec(("[a-c]{1,2}", 0_usize..20, any::<bool>()), 1..25)) {
        let mut core = core();
        for (name, parent, organization) in names {
            let filter = IdentityFilter::default();
            let parent = core.registry().list(&filter).nth(parent).map(|p| p.name.clone());
            let Some(parent) = parent else { continue };
            let kind = if organization { IdentityType::Organization } else { IdentityType::User };
            let request = request(&core, &name, kind, &parent);
            let effects = core.step(NOW, Event::Create { id: ID, request });
            if let [Effect::AskKeys { path, .. }] = &effects[..] {
                let act = only_act(&core.step(NOW, Event::KeyDerived { id: ID, result: Ok(key_of(path)) }));
                core.step(NOW, Event::Acted { id: ID, result: Ok(at(9)) });
                fold(&mut core, 9, NOW, &act.proposal);
            }
        }
        prop_assert_eq!(core.registry().ignored(), 0);
        let filter = IdentityFilter::default();
        for identity in core.registry().list(&filter) {
            prop_assert_eq!(identity.id, IdentityId::of_key(&identity.public_key));
            prop_assert_eq!(identity.public_key, key_of(&identity.key_path));
            prop_assert!(identity.parent.is_none_or(|parent| core.registry().get(&parent).is_ok()));
            prop_assert_eq!(core.registry().find(&identity.name).map(|found| found.id), Some(identity.id));
        }
    }
}
