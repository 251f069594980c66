//! What a decision allows: the entry that says the same, and none that differs in what counts.

use base::{
    AxiomRef, AxiomTime, CapabilityId, ConnectionId, CredentialId, Hash, IdentityId, JobId, KeyPath,
    ProcessId, Sequence, TokenId, TreeId,
};
use chain::payload::{
    Body, Payload,
    capability::{CapabilityGrant, CapabilityRevoke, ObjectType, Permissions, Resource},
    identity::{
        CredentialAdded, CredentialBody, CredentialRevoked, IdentityChange, IdentityCreated, IdentityStatus,
        IdentityType, IdentityUpdated, KeyOperation, KeyRotation, KeyUsage, Svid,
    },
    image::{ImageForm, ImageImport, ImageRemove},
    job::JobSubmit,
    log::LogArchive,
    network::{
        CallLimits, ConnectionAuthorize, ConnectionRevoke, Direction, NetworkGrant, NetworkPolicyUpdate,
        Protocol,
    },
    policy::{
        ActionKind, PolicyAction, PolicyCondition, PolicyEffect, PolicyRuleAdded, PolicyRuleRemoved,
        ServiceOperation,
    },
    process::{ProcessCreate, ProcessKill, ResourceLimits, Signal},
    service::{ServiceRegister, ServiceStart, ServiceStop, ServiceType},
};

use super::support::{
    ADMIN, ALICE, BOB, ORG, all_actions, allow, at, born, envelope, id, rule, rule_id, state,
};
use crate::core::authority::{fits_decision, fits_no_decision, identity_of, may_act, may_ask, may_record};

const CAPABILITY: CapabilityId = CapabilityId([1; 16]);
const OTHER_CAPABILITY: CapabilityId = CapabilityId([2; 16]);
const MESSAGE: &[u8] = b"m";

/// An action by Bob, an entry that carries it out, and entries that do something else.
struct Case {
    action: PolicyAction,
    fits: Vec<Payload>,
    differs: Vec<Payload>,
}

fn payload<T: Body>(body: T) -> Payload {
    Payload::decode(T::ENTRY_TYPE, &envelope(body).to_bytes().unwrap()).unwrap()
}

fn grant(capability_id: CapabilityId, parent: Option<CapabilityId>, grantee: u8) -> Payload {
    payload(CapabilityGrant {
        capability_id,
        grantor: id(BOB),
        grantee: id(grantee),
        resource: Resource { object_type: ObjectType::File, object_id: "/a".to_owned() },
        permissions: Permissions::default(),
        restrictions: None,
        parent,
    })
}

fn revoke(capability: CapabilityId, by: u8) -> Payload {
    payload(CapabilityRevoke { capability, by: id(by), reason: String::new() })
}

fn submit(executable: &[u8], by: u8) -> Payload {
    payload(JobSubmit {
        job: JobId([1; 16]),
        manifest: Hash::ZERO,
        executable: Hash::of(executable),
        inputs: vec![],
        by: id(by),
        name: String::new(),
        process: ProcessId(7),
    })
}

fn register(name: &str) -> Payload {
    payload(ServiceRegister {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        service_type: ServiceType::Core,
        binary: Hash::ZERO,
        manifest: Hash::ZERO,
        key_path: KeyPath::parse("/orbital/services/keys").unwrap(),
    })
}

fn start(name: &str) -> Payload {
    let name = name.to_owned();
    payload(ServiceStart { name, pid: 7, binary: Hash::ZERO, restarts: 0, late: false, missing: vec![] })
}

fn stop(name: &str) -> Payload {
    payload(ServiceStop { name: name.to_owned(), reason: String::new(), late: false })
}

fn create(image: &[u8], by: u8) -> Payload {
    payload(ProcessCreate {
        pid: ProcessId(7),
        image: Hash::of(image),
        identity: id(BOB),
        capabilities: vec![],
        limits: ResourceLimits::default(),
        by: id(by),
        args_hash: Hash::ZERO,
        name: "p".to_owned(),
        grants: vec![],
        missing: vec![],
    })
}

fn kill(pid: u64, by: u8) -> Payload {
    payload(ProcessKill { pid: ProcessId(pid), signal: Signal::Term, by: id(by), reason: String::new() })
}

const PLACE: &str = "192.0.2.1:80";
const CONNECTION: ConnectionId = ConnectionId([1; 16]);

fn connection(direction: Direction, local: Option<&str>, remote: Option<&str>, whose: u8) -> Payload {
    payload(ConnectionAuthorize {
        connection: CONNECTION,
        direction,
        protocol: Protocol::Tcp,
        local: local.map(str::to_owned),
        remote: remote.map(str::to_owned),
        name: None,
        identity: id(whose),
        process: ProcessId(0),
        grant: NetworkGrant::UNLIMITED,
        secret: None,
    })
}

fn imported(name: &str, by: u8, taken_from: Option<u8>) -> Payload {
    payload(ImageImport {
        name: name.to_owned(),
        tree: TreeId([1; 32]),
        form: ImageForm::OciLayout,
        manifest: None,
        size_bytes: 1,
        entries: 1,
        by: id(by),
        taken_from: taken_from.map(id),
    })
}

fn image_removed(name: &str, by: u8, taken_from: Option<u8>) -> Payload {
    let (tree, taken_from) = (TreeId([1; 32]), taken_from.map(id));
    payload(ImageRemove { name: name.to_owned(), tree, by: id(by), taken_from })
}

fn cut(connection: ConnectionId, by: u8) -> Payload {
    payload(ConnectionRevoke { connection, by: id(by), reason: String::new() })
}

fn url_rules(by: u8) -> Payload {
    payload(NetworkPolicyUpdate {
        rules: vec![],
        limits: CallLimits {
            process_requests: 1,
            process_window_ms: 1,
            host_requests: 1,
            host_window_ms: 1,
            request_bytes: 1,
            response_bytes: 1,
            header_bytes: 1,
            message_bytes: 1,
        },
        authorities: vec![],
        by: id(by),
    })
}

fn identity(parent: Option<u8>, name: &str) -> Payload {
    let path = "/orbital/users/carol";
    payload(IdentityCreated { parent: parent.map(id), ..born(50, name, IdentityType::User, None, path) })
}

fn update(whose: u8, change: IdentityChange) -> Payload {
    payload(IdentityUpdated { identity: id(whose), change })
}

fn suspension(by: u8) -> IdentityChange {
    let (old, new) = (IdentityStatus::Active, IdentityStatus::Suspended);
    IdentityChange::Status { old, new, by: id(by), reason: String::new() }
}

fn token_revoked(by: u8) -> IdentityChange {
    IdentityChange::TokenRevoked { token: TokenId([0; 16]), by: id(by) }
}

fn token_issued() -> IdentityChange {
    IdentityChange::TokenIssued { token: TokenId([0; 16]), channel: "c".to_owned(), expires_at: AxiomTime(1) }
}

fn svid_issued() -> IdentityChange {
    let svid = Svid::X509 { serial: [1; 16] };
    IdentityChange::SvidIssued { svid, message_hash: Hash::ZERO, expires_at: AxiomTime(1) }
}

fn authenticated() -> IdentityChange {
    IdentityChange::Authenticated {
        credential: CredentialId([1; 16]),
        token: TokenId([0; 16]),
        channel: "c".to_owned(),
        expires_at: AxiomTime(1),
        sign_count: None,
    }
}

fn credential(whose: u8, by: u8) -> Payload {
    let body = CredentialBody::RecoveryKey { key_hash: Hash::ZERO, used: false };
    let name = String::new();
    payload(CredentialAdded {
        identity: id(whose),
        credential: CredentialId([1; 16]),
        name,
        body,
        by: id(by),
    })
}

fn credential_revoked(whose: u8, credential: u8, by: u8) -> Payload {
    let credential = CredentialId([credential; 16]);
    payload(CredentialRevoked { identity: id(whose), credential, by: id(by), reason: String::new() })
}

fn failed() -> IdentityChange {
    IdentityChange::AuthenticationFailed { channel: "c".to_owned(), reason: String::new(), credential: None }
}

fn usage(operation: KeyOperation, who: u8, path: &str, message: Option<&[u8]>) -> Payload {
    payload(KeyUsage {
        identity: id(who),
        key_path: KeyPath::parse(path).unwrap(),
        operation,
        message_hash: message.map(Hash::of),
        authorization: at(0),
        output_hash: None,
        refused: None,
        reason: None,
        epoch: None,
        rotation: None,
    })
}

/// From the epoch before; from the same one for 0.
fn rotated(who: u8, path: &str, to: &str, epoch: u32) -> Payload {
    let Payload::KeyUsage(mut entry) = usage(KeyOperation::Rotate, who, path, None) else { panic!() };
    entry.body.rotation = Some(KeyRotation {
        old_path: KeyPath::parse(path).unwrap(),
        old_epoch: epoch.saturating_sub(1),
        new_path: KeyPath::parse(to).unwrap(),
        new_epoch: epoch,
        rotated_by: id(who),
        reason: "r".to_owned(),
    });
    Payload::KeyUsage(entry)
}

fn archive(by: u8) -> Payload {
    let last = AxiomRef { sequence: Sequence(4), hash: Hash::ZERO };
    payload(LogArchive {
        from: Sequence(0),
        last,
        segments: 1,
        checkpoint: String::new(),
        witnesses: vec![],
        place: "/archive".to_owned(),
        by: id(by),
    })
}

/// Rules in force: `allow`. Bob asks, about `image`, pid 7, the service `keys`, his own key and Alice.
fn cases() -> Vec<Case> {
    use KeyOperation::{Decrypt, Encrypt, Lock, Sign, Unlock};
    const KEYS: &str = "/orbital/services/keys";
    const KEY: &str = "/orbital/users/bob/k";
    const OTHER_KEY: &str = "/orbital/users/bob/l";
    let key_path = || KeyPath::parse(KEY).unwrap();
    let stored = allow(PolicyCondition::Always);
    let new = rule("new", 5, PolicyEffect::Deny, PolicyCondition::Always);
    let changed = |by| payload(PolicyRuleAdded { rule: new.clone(), created_by: id(by) });
    let removed = |rule: &str, by| payload(PolicyRuleRemoved { rule: rule_id(rule), removed_by: id(by) });
    let case = |action, fits, differs| Case { action, fits, differs };
    vec![
        case(
            PolicyAction::DelegateCapability { capability: CAPABILITY, to: id(ALICE) },
            vec![grant(OTHER_CAPABILITY, Some(CAPABILITY), ALICE), grant(CAPABILITY, None, ALICE)],
            vec![
                grant(OTHER_CAPABILITY, Some(CAPABILITY), BOB),
                grant(CAPABILITY, None, BOB),
                grant(OTHER_CAPABILITY, None, ALICE),
            ],
        ),
        case(
            PolicyAction::RevokeCapability { capability: CAPABILITY },
            vec![revoke(CAPABILITY, BOB)],
            vec![revoke(OTHER_CAPABILITY, BOB), revoke(CAPABILITY, ALICE)],
        ),
        case(
            PolicyAction::ControlService { service: "keys".to_owned(), operation: ServiceOperation::Start },
            vec![register("keys"), start("keys"), stop("keys")],
            vec![register("axiom"), start("axiom"), stop("axiom"), usage(Lock, BOB, KEYS, None)],
        ),
        case(
            PolicyAction::ControlService {
                service: "network".to_owned(),
                operation: ServiceOperation::Configure,
            },
            vec![url_rules(BOB)],
            vec![url_rules(ALICE)],
        ),
        case(
            PolicyAction::ControlService {
                service: "keys".to_owned(),
                operation: ServiceOperation::Configure,
            },
            vec![],
            vec![url_rules(BOB)],
        ),
        case(
            PolicyAction::ControlService { service: "network".to_owned(), operation: ServiceOperation::Stop },
            vec![],
            vec![url_rules(BOB)],
        ),
        case(
            PolicyAction::ControlService { service: "keys".to_owned(), operation: ServiceOperation::Lock },
            vec![usage(Lock, BOB, KEYS, None)],
            vec![
                usage(Unlock, BOB, KEYS, None),
                usage(Lock, ALICE, KEYS, None),
                usage(Lock, BOB, KEY, None),
                usage(Sign, BOB, KEYS, None),
            ],
        ),
        case(
            PolicyAction::RotateKey { key_path: key_path() },
            vec![rotated(BOB, KEY, KEY, 1), rotated(BOB, KEY, KEY, 7)],
            vec![
                rotated(ALICE, KEY, KEY, 1),
                rotated(BOB, OTHER_KEY, OTHER_KEY, 1),
                rotated(BOB, KEY, OTHER_KEY, 1),
                rotated(BOB, KEY, KEY, 0),
                usage(Sign, BOB, KEY, None),
            ],
        ),
        case(
            PolicyAction::ControlService { service: "axiom".to_owned(), operation: ServiceOperation::Unlock },
            vec![],
            vec![usage(Unlock, BOB, KEYS, None), archive(BOB)],
        ),
        case(
            PolicyAction::ControlService {
                service: "axiom".to_owned(),
                operation: ServiceOperation::Archive,
            },
            vec![archive(BOB)],
            vec![archive(ALICE), usage(Lock, BOB, KEYS, None)],
        ),
        case(
            PolicyAction::ControlService { service: "keys".to_owned(), operation: ServiceOperation::Archive },
            vec![],
            vec![archive(BOB)],
        ),
        case(
            PolicyAction::CreateProcess { image: Hash::of(b"image") },
            vec![create(b"image", BOB), submit(b"image", BOB)],
            vec![
                create(b"other", BOB),
                create(b"image", ALICE),
                submit(b"other", BOB),
                submit(b"image", ALICE),
            ],
        ),
        case(
            PolicyAction::ImportImage { name: "web".to_owned() },
            vec![imported("web", BOB, None)],
            vec![
                imported("other", BOB, None),
                imported("web", ALICE, None),
                imported("web", BOB, Some(ALICE)),
                image_removed("web", BOB, None),
            ],
        ),
        case(
            PolicyAction::RemoveImage { name: "web".to_owned() },
            vec![image_removed("web", BOB, None)],
            vec![
                image_removed("other", BOB, None),
                image_removed("web", ALICE, None),
                image_removed("web", BOB, Some(ALICE)),
                imported("web", BOB, None),
            ],
        ),
        case(
            PolicyAction::TakeImage { name: "web".to_owned() },
            vec![imported("web", BOB, Some(ALICE)), image_removed("web", BOB, Some(ALICE))],
            vec![
                imported("web", BOB, None),
                image_removed("web", BOB, None),
                imported("other", BOB, Some(ALICE)),
                image_removed("web", ALICE, Some(BOB)),
            ],
        ),
        case(
            PolicyAction::UseImage { name: "web".to_owned(), tree: TreeId([1; 32]) },
            vec![],
            vec![imported("web", BOB, None), create(b"image", BOB)],
        ),
        case(
            PolicyAction::UseSecret { name: "key".to_owned(), place: "api.test:443".to_owned() },
            vec![],
            vec![connection(Direction::Outbound, None, Some("api.test:443"), BOB)],
        ),
        case(
            PolicyAction::Connect { address: PLACE.to_owned() },
            vec![connection(Direction::Outbound, None, Some(PLACE), BOB)],
            vec![
                connection(Direction::Outbound, None, Some("192.0.2.1:81"), BOB),
                connection(Direction::Outbound, None, None, BOB),
                connection(Direction::Inbound, Some(PLACE), Some(PLACE), BOB),
                connection(Direction::Outbound, None, Some(PLACE), ALICE),
                cut(CONNECTION, BOB),
            ],
        ),
        case(
            PolicyAction::Listen { address: PLACE.to_owned() },
            vec![
                connection(Direction::Inbound, Some(PLACE), None, BOB),
                connection(Direction::Inbound, Some(PLACE), Some("192.0.2.9:5"), BOB),
            ],
            vec![
                connection(Direction::Inbound, Some("192.0.2.1:81"), None, BOB),
                connection(Direction::Outbound, Some(PLACE), Some(PLACE), BOB),
                connection(Direction::Inbound, Some(PLACE), None, ALICE),
            ],
        ),
        case(
            PolicyAction::Disconnect { connection: CONNECTION },
            vec![cut(CONNECTION, BOB)],
            vec![cut(ConnectionId([2; 16]), BOB), cut(CONNECTION, ALICE)],
        ),
        case(
            PolicyAction::TerminateProcess { pid: ProcessId(7) },
            vec![kill(7, BOB)],
            vec![kill(8, BOB), kill(7, ALICE)],
        ),
        case(
            PolicyAction::ModifyPolicy { rule: Box::new(new.clone()) },
            vec![changed(BOB)],
            vec![changed(ALICE), removed("allow", BOB), removed("new", BOB)],
        ),
        case(
            PolicyAction::ModifyPolicy { rule: Box::new(stored) },
            vec![removed("allow", BOB)],
            vec![removed("allow", ALICE), changed(BOB)],
        ),
        case(
            PolicyAction::CreateIdentity { parent: id(ORG), name: "carol".to_owned() },
            vec![identity(Some(ORG), "carol")],
            vec![identity(Some(ADMIN), "carol"), identity(None, "carol"), identity(Some(ORG), "dave")],
        ),
        case(
            PolicyAction::ModifyIdentity { identity: id(ALICE) },
            vec![update(ALICE, suspension(BOB)), update(ALICE, token_revoked(BOB))],
            vec![
                update(ORG, suspension(BOB)),
                update(ALICE, suspension(ALICE)),
                update(ORG, token_revoked(BOB)),
                update(ALICE, token_revoked(ALICE)),
                update(ALICE, token_issued()),
                update(ALICE, failed()),
            ],
        ),
        case(
            PolicyAction::Authenticate { identity: id(ALICE) },
            vec![update(ALICE, token_issued())],
            vec![
                update(ORG, token_issued()),
                update(ALICE, suspension(BOB)),
                update(ALICE, failed()),
                update(ALICE, authenticated()),
                update(ALICE, svid_issued()),
            ],
        ),
        case(
            PolicyAction::Authenticate { identity: id(BOB) },
            vec![update(BOB, authenticated()), update(BOB, svid_issued())],
            vec![update(ALICE, authenticated()), update(ALICE, svid_issued())],
        ),
        case(
            PolicyAction::AddCredential { identity: id(ALICE) },
            vec![credential(ALICE, BOB)],
            vec![credential(ORG, BOB), credential(ALICE, ALICE), credential_revoked(ALICE, 1, BOB)],
        ),
        case(
            PolicyAction::RevokeCredential { identity: id(ALICE), credential: CredentialId([1; 16]) },
            vec![credential_revoked(ALICE, 1, BOB)],
            vec![
                credential_revoked(ORG, 1, BOB),
                credential_revoked(ALICE, 2, BOB),
                credential_revoked(ALICE, 1, ALICE),
                credential(ALICE, BOB),
            ],
        ),
        case(
            PolicyAction::Sign { key_path: key_path(), message_hash: Hash::of(MESSAGE) },
            vec![usage(Sign, BOB, KEY, Some(MESSAGE))],
            vec![
                usage(Sign, ALICE, KEY, Some(MESSAGE)),
                usage(Sign, BOB, OTHER_KEY, Some(MESSAGE)),
                usage(Sign, BOB, KEY, Some(b"other")),
                usage(Sign, BOB, KEY, None),
                usage(Encrypt, BOB, KEY, Some(MESSAGE)),
            ],
        ),
        case(
            PolicyAction::Encrypt { key_path: key_path() },
            vec![usage(Encrypt, BOB, KEY, None)],
            vec![
                usage(Encrypt, ALICE, KEY, None),
                usage(Encrypt, BOB, OTHER_KEY, None),
                usage(Decrypt, BOB, KEY, None),
            ],
        ),
        case(
            PolicyAction::Decrypt { key_path: key_path() },
            vec![usage(Decrypt, BOB, KEY, None)],
            vec![
                usage(Decrypt, ALICE, KEY, None),
                usage(Decrypt, BOB, OTHER_KEY, None),
                usage(Encrypt, BOB, KEY, None),
            ],
        ),
    ]
}

/// covers: POL-16
#[test]
fn a_decision_allows_the_entry_that_does_the_same_and_no_other() {
    let state = state(vec![allow(PolicyCondition::Always)]);
    let allowed = |action: &PolicyAction, entry: &Payload| fits_decision(&state, action, id(BOB), entry);
    for case in cases() {
        for entry in &case.fits {
            assert!(allowed(&case.action, entry), "{:?} {entry:?}", case.action);
            let others = all_actions().into_iter().filter(|other| other.kind() != case.action.kind());
            others.for_each(|other| assert!(!allowed(&other, entry), "{other:?} {entry:?}"));
        }
        for entry in &case.differs {
            assert!(!allowed(&case.action, entry), "{:?} {entry:?}", case.action);
        }
    }
}

/// A rule with the id of another that is in force is not that rule.
#[test]
fn a_rule_is_removed_by_a_decision_about_the_rule_that_is_in_force() {
    let state = state(vec![allow(PolicyCondition::Always)]);
    let other = PolicyAction::ModifyPolicy { rule: Box::new(allow(PolicyCondition::Never)) };
    let removal = payload(PolicyRuleRemoved { rule: rule_id("allow"), removed_by: id(BOB) });
    assert!(!fits_decision(&state, &other, id(BOB), &removal));
}

#[test]
fn without_a_decision_an_identity_is_recorded_as_refused_and_never_changed() {
    assert!(fits_no_decision(&update(BOB, failed())));
    for change in [suspension(BOB), token_revoked(BOB), token_issued(), authenticated(), svid_issued()] {
        assert!(!fits_no_decision(&update(BOB, change.clone())), "{change:?}");
    }
    assert!(fits_no_decision(&usage(KeyOperation::Sign, BOB, "/orbital/users/bob", None)));
}

#[test]
fn a_service_may_do_what_stands_in_its_row_and_nothing_else() {
    for (service, entry_type, act, record) in [
        ("keys", 92, true, true),
        ("keys", 88, false, false),
        ("identity", 88, true, false),
        ("identity", 89, true, true),
        ("policy", 86, true, false),
        ("supervisor", 23, false, true),
        ("supervisor", 92, false, false),
        ("terminal", 92, false, false),
        ("terminal", 80, false, true),
    ] {
        let found = (may_act(service, entry_type), may_record(service, entry_type));
        assert_eq!(found, (act, record), "{service} {entry_type}");
    }
    for (service, kind, expected) in [
        ("keys", ActionKind::Sign, true),
        ("keys", ActionKind::CreateFile, false),
        ("filesystem", ActionKind::CreateFile, true),
        ("terminal", ActionKind::Sign, false),
    ] {
        assert_eq!(may_ask(service, kind), expected, "{service} {kind:?}");
    }
}

#[test]
fn a_service_submits_as_the_identity_with_its_key_path() {
    let state = state(vec![]);
    let found = |service: &str| identity_of(&state, service).map(|who| who.id);
    assert_eq!(found("keys"), Some(id(super::support::KEYS)));
    for nobody in ["terminal", "../users/bob", ""] {
        assert_eq!(found(nobody), None::<IdentityId>, "{nobody:?}");
    }
}
