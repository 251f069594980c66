//! Which units get in: records without a decision, what may use the reserve, and room to the last byte.

use base::{ConnectionId, TokenId, TreeId};
use chain::payload::{
    identity::{
        IdentityChange, IdentityCreated, IdentityStatus, IdentityType, IdentityUpdated, KeyOperation,
        KeyUsage,
    },
    policy::{ExecuteTarget, FileType, ProcessOperation, ServiceOperation},
    process::{ProcessCreate, ProcessKill, ResourceLimits, Signal},
    service::{ServiceError, ServiceFailed, ServiceStop},
};
use chain::{GROUP_ENTRIES_MAX, record_bytes};

use super::*;

const ADMIN: IdentityId = IdentityId([9; 32]);

fn is_accepted(reply: &UnitReply) -> bool {
    matches!(reply, UnitReply::Accepted(_))
}

fn usage(key: u8, authorization: Option<Hash>, refused: bool, output: bool) -> Draft {
    let body = KeyUsage {
        identity: ADMIN,
        key_path: KeyPath::parse("/orbital/users/admin").unwrap(),
        operation: KeyOperation::Sign,
        message_hash: None,
        authorization: AxiomRef { sequence: Sequence(0), hash: Hash::ZERO },
        output_hash: output.then_some(Hash::ZERO),
        refused: refused.then(|| "x".to_owned()),
        reason: None,
        epoch: None,
        rotation: None,
    };
    draft(key, authorization, body)
}

fn update(key: u8, authorization: Option<Hash>, change: IdentityChange) -> Draft {
    draft(key, authorization, IdentityUpdated { identity: user().identity_id, change })
}

fn suspension() -> IdentityChange {
    let (old, new) = (IdentityStatus::Active, IdentityStatus::Suspended);
    IdentityChange::Status { old, new, by: ADMIN, reason: "x".into() }
}

fn token_revoked() -> IdentityChange {
    IdentityChange::TokenRevoked { token: TokenId([0; 16]), by: ADMIN }
}

fn token_issued() -> IdentityChange {
    IdentityChange::TokenIssued { token: TokenId([0; 16]), channel: "c".into(), expires_at: AxiomTime(1) }
}

fn failed() -> IdentityChange {
    IdentityChange::AuthenticationFailed { channel: "c".into(), reason: "x".into(), credential: None }
}

fn user() -> IdentityCreated {
    let public_key = PublicKey([4; 32]);
    IdentityCreated {
        identity_id: IdentityId::of_key(&public_key),
        name: "user".into(),
        identity_type: IdentityType::User,
        parent: None,
        public_key,
        key_path: KeyPath::parse("/orbital/users/user").unwrap(),
    }
}

/// A user and a program 7 are there.
fn peopled() -> Bed {
    let mut bed = Bed::new();
    let born = PolicyAction::CreateIdentity { parent: ADMIN, name: "user".into() };
    let decided = decision(200, 200, born, PolicyEffect::Allow, 100);
    bed.accepted(unit([decided, draft(201, Some(request(200)), user())]));
    let run = PolicyAction::CreateProcess { image: Hash::ZERO };
    let decided = decision(202, 202, run, PolicyEffect::Allow, 100);
    bed.accepted(unit([decided, draft(203, Some(request(202)), program(7))]));
    bed
}

fn program(pid: u64) -> ProcessCreate {
    ProcessCreate {
        pid: ProcessId(pid),
        image: Hash::ZERO,
        identity: ADMIN,
        capabilities: vec![],
        limits: ResourceLimits::default(),
        by: ADMIN,
        args_hash: Hash::ZERO,
        name: "p".into(),
        grants: vec![],
        missing: vec![],
    }
}

/// covers: AX-37
#[test]
fn without_a_decision_only_what_was_refused_or_ended_is_recorded() {
    let mut bed = peopled();
    for (record, expected) in [
        (usage(1, None, true, false), true),
        (usage(2, None, false, true), false),
        (usage(3, None, false, false), false),
        (usage(4, None, true, true), false),
        (update(5, None, failed()), true),
        (update(6, None, suspension()), false),
        (update(7, None, token_revoked()), false),
        (update(8, None, token_issued()), false),
        (draft(9, None, exit_of(7)), true),
        (draft(10, None, user()), false),
    ] {
        match expected {
            true => drop(bed.accepted(unit([record]))),
            false => bed.refused(unit([record]), RejectionReason::MissingPolicyDecision),
        }
    }
}

#[test]
fn an_act_beside_a_decision_cites_it_and_a_decision_cites_none() {
    let mut bed = Bed::new();
    bed.refused(unit([allow(1, 1), receipt(2)]), RejectionReason::MissingPolicyDecision);
    bed.refused(unit([allow(1, 1), allow(2, 2)]), RejectionReason::InvalidPayload);
    bed.refused(unit([receipt(1), act(2, 1, 10)]), RejectionReason::InvalidPayload);
    bed.accepted(unit([allow(1, 1)]));
    let body = base::cbor::decode::<DecisionBody>(&body(2, delegate(), PolicyEffect::Allow, 100)).unwrap();
    let leaf = base::cbor::encode(&body);
    let root = merkle::sign_root(&policy_key(), &merkle::leaf(&leaf));
    let signature = DecisionSignature { root, index: 0, count: 1, path: vec![] };
    let citing = draft(3, Some(request(1)), SignedDecision { body: leaf, signature });
    bed.refused(unit([citing]), RejectionReason::PolicyMismatch);
}

/// The supervisor cites for one service what was decided for it; the engine's channel is not bound to its types.
#[test]
fn what_the_supervisor_may_append_another_needs_a_decision_for() {
    let down = || unit([draft(1, None, Shutdown { reason: "x".into() })]);
    let mut bed = Bed::new();
    bed.refused(down(), RejectionReason::MissingPolicyDecision);
    assert!(is_accepted(&bed.batch(ROOM, Source::Supervisor, vec![down()])[0]));
}

#[test]
fn a_decision_may_lie_a_second_ahead() {
    let mut bed = Bed::new();
    bed.accepted(unit([decision(1, 1, delegate(), PolicyEffect::Allow, 101)]));
    let later = unit([decision(2, 2, delegate(), PolicyEffect::Allow, 102)]);
    bed.refused(later, RejectionReason::PolicyDecisionExpired);
}

#[test]
fn an_action_is_carried_out_by_its_own_types_of_entry() {
    use crate::core::decisions::action_allows;
    let path = || "/a".to_owned();
    let key_path = || KeyPath::parse("/orbital/users/admin").unwrap();
    let capability = CapabilityId([1; 16]);
    let identity = ADMIN;
    let credential = base::CredentialId([1; 16]);
    let service = ServiceOperation::Stop;
    let entries = |action: PolicyAction| -> Vec<u32> {
        let all = EntryType::ALL.iter().filter(|kind| action_allows(action.kind(), **kind));
        all.map(|kind| kind.code()).collect()
    };
    for (action, expected) in [
        (PolicyAction::CreateProcess { image: Hash::ZERO }, &[30, 70][..]),
        (PolicyAction::TerminateProcess { pid: ProcessId(1) }, &[32]),
        (PolicyAction::ControlProcess { pid: ProcessId(1), operation: ProcessOperation::Suspend }, &[32]),
        (PolicyAction::Execute { target: ExecuteTarget::Process(ProcessId(1)) }, &[]),
        (PolicyAction::CreateFile { path: path(), file_type: FileType::File }, &[40, 43, 50, 52]),
        (PolicyAction::ReadFile { path: path() }, &[]),
        (PolicyAction::WriteFile { path: path() }, &[42, 50, 53]),
        (PolicyAction::DeleteFile { path: path() }, &[41, 44, 51]),
        (PolicyAction::Connect { address: path() }, &[60]),
        (PolicyAction::Disconnect { connection: ConnectionId([1; 16]) }, &[61]),
        (PolicyAction::ImportImage { name: path() }, &[76]),
        (PolicyAction::RemoveImage { name: path() }, &[77]),
        (PolicyAction::TakeImage { name: path() }, &[76, 77]),
        (PolicyAction::UseImage { name: path(), tree: TreeId([1; 32]) }, &[]),
        (PolicyAction::UseSecret { name: path(), place: path() }, &[]),
        (PolicyAction::Sign { key_path: key_path(), message_hash: Hash::ZERO }, &[92]),
        (PolicyAction::CreateIdentity { parent: identity, name: path() }, &[88]),
        (PolicyAction::AddCredential { identity }, &[90]),
        (PolicyAction::RevokeCredential { identity, credential }, &[91]),
        (PolicyAction::DelegateCapability { capability, to: identity }, &[10]),
        (PolicyAction::RevokeCapability { capability }, &[11]),
        (PolicyAction::UpgradeSystem { image: Hash::ZERO }, &[100, 101, 102]),
        (PolicyAction::ControlService { service: path(), operation: service }, &[1, 20, 21, 22, 62, 92, 110]),
        (PolicyAction::ModifyIdentity { identity }, &[89]),
        (PolicyAction::Authenticate { identity }, &[89]),
    ] {
        assert_eq!(entries(action.clone()), expected, "{action:?}");
    }
}

#[test]
fn the_reserve_is_for_what_ends_or_takes_away() {
    let reserve = Limits { reserve_only: true, ..ROOM };
    let mut bed = peopled();
    let name = || "axiom".to_owned();
    let stopped = ServiceStop { name: name(), reason: "x".into(), late: false };
    let error = ServiceError::HealthTimeout;
    let ended = ServiceFailed { name: name(), error, text: "x".into(), late: false };
    for record in [draft(1, None, stopped), draft(2, None, ended)] {
        assert!(is_accepted(&bed.batch(reserve, Source::Supervisor, vec![unit([record])])[0]));
    }
    // Decided while there was room, carried out from the reserve.
    let kill = PolicyAction::TerminateProcess { pid: ProcessId(7) };
    let modify = || PolicyAction::ModifyIdentity { identity: user().identity_id };
    let login = PolicyAction::Authenticate { identity: user().identity_id };
    let kill_7 = ProcessKill { pid: ProcessId(7), signal: Signal::Term, by: ADMIN, reason: "x".into() };
    for (n, action, entry, expected) in [
        (10, kill, draft(11, Some(request(10)), kill_7), true),
        (20, modify(), update(21, Some(request(20)), suspension()), true),
        (30, modify(), update(31, Some(request(30)), token_revoked()), true),
        (40, login, update(41, Some(request(40)), token_issued()), false),
    ] {
        bed.accepted(unit([decision(n, n, action.clone(), PolicyEffect::Allow, 100)]));
        let reply = bed.batch(reserve, Source::Policy, vec![unit([entry])]).remove(0);
        assert_eq!(is_accepted(&reply), expected, "{action:?}");
    }
    let full = Limits { full: true, ..reserve };
    let down = unit([draft(50, None, Shutdown { reason: "x".into() })]);
    assert!(!is_accepted(&bed.batch(full, Source::Supervisor, vec![down])[0]));
}

#[test]
fn a_group_takes_units_to_the_last_byte_and_the_last_entry() {
    let mut bed = Bed::new();
    let bytes = record_bytes(receipt(1).payload.len(), false) as u64;
    let accepted = |bed: &mut Bed, room: u64, from: u8| {
        let limits = Limits { body_bytes_max: room, ..ROOM };
        let units = (0..3).map(|n| unit([receipt(from + n)])).collect();
        bed.batch(limits, Source::Policy, units).iter().filter(|reply| is_accepted(reply)).count()
    };
    assert_eq!(accepted(&mut bed, 2 * bytes, 1), 2);
    assert_eq!(accepted(&mut bed, 2 * bytes - 1, 11), 1);
    let numbered = |n: u32| {
        let mut draft = receipt(0);
        // The key stands behind the submitter.
        let at = draft.payload.windows(16).position(|bytes| bytes == [0; 16]).unwrap();
        draft.payload[at..at + 4].copy_from_slice(&(n + 1).to_be_bytes());
        unit([draft])
    };
    let mut units: Vec<_> = (0..GROUP_ENTRIES_MAX - 1).map(numbered).collect();
    units.push(unit([allow(100, 100), act(101, 100, 10)]));
    units.extend([numbered(GROUP_ENTRIES_MAX), numbered(GROUP_ENTRIES_MAX + 1)]);
    let replies = bed.batch(Limits { body_bytes_max: u64::MAX, ..ROOM }, Source::Policy, units);
    let refused: Vec<_> = (0..replies.len()).filter(|n| !is_accepted(&replies[*n])).collect();
    let max = GROUP_ENTRIES_MAX as usize;
    assert_eq!(refused, [max - 1, max + 1], "two entries do not fit where one does");
}

#[test]
fn a_payload_is_accepted_up_to_its_limit() {
    let shutdown = |bytes: usize| draft(1, None, Shutdown { reason: "x".repeat(bytes) });
    let fits = PAYLOAD_SIZE_BYTES_MAX - shutdown(60_000).payload.len() + 60_000;
    assert_eq!(shutdown(fits).payload.len(), PAYLOAD_SIZE_BYTES_MAX);
    let mut bed = Bed::new();
    assert!(is_accepted(&bed.batch(ROOM, Source::Supervisor, vec![unit([shutdown(fits)])])[0]));
    let mut long = draft(2, None, Shutdown { reason: String::new() });
    long.payload.resize(PAYLOAD_SIZE_BYTES_MAX + 1, 0);
    match &bed.batch(ROOM, Source::Supervisor, vec![unit([long])])[0] {
        UnitReply::Rejected(refusal) => {
            assert!(refusal.text.contains("larger data goes by hash"), "{refusal}")
        }
        other => panic!("{other:?}"),
    }
}

/// covers: AX-41
#[test]
fn the_same_bytes_under_another_type_are_another_entry() {
    let mut bed = Bed::new();
    for key in 1..=255 {
        let first = receipt(key);
        bed.accepted(unit([first.clone()]));
        let other = unit([Draft { entry_type: EntryType::ProcessExit, ..first }]);
        bed.refused(other, RejectionReason::DuplicateNonce);
    }
    let other = Draft { entry_type: EntryType::ProcessExit, ..receipt(1) };
    match bed.one(unit([other])) {
        UnitReply::Rejected(refusal) => assert!(refusal.text.contains("for entry 1,"), "{refusal}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_who_trusts_signatures_believes_a_forged_decision() {
    let mut forged = allow(1, 1);
    let last = forged.payload.len() - 10;
    forged.payload[last] ^= 1;
    let mut bed = Bed::new();
    bed.refused(unit([forged.clone()]), RejectionReason::InvalidPolicySignature);
    bed.sequencer.trust_signatures();
    bed.accepted(unit([forged]));
}

#[test]
fn what_cannot_be_read_is_not_replayed_and_time_goes_on_from_the_last_entry() {
    let mut bed = Bed::new();
    let entry = bed.log[0].clone();
    assert!(!Sequencer::new().replay(&entry.header, b"\x00", entry.hash()));
    assert_eq!(bed.sequencer.last_time(), AxiomTime(100 * SECOND));
    bed.after_s(3);
    assert_eq!(bed.sequencer.now(bed.now), AxiomTime(103 * SECOND));
}
