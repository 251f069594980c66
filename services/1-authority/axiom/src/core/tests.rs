//! The sequencer's rules, through units and replies alone.

use base::{
    AxiomRef, AxiomTime, CapabilityId, EntryKey, Hash, IdentityId, KeyPath, Nonce, ProcessId, PublicKey,
    RuleId, Sequence,
    limits::{DECISION_VALIDITY_NS, PAYLOAD_SIZE_BYTES_MAX},
};
use chain::{
    EntryType, merkle,
    payload::{
        Envelope, Receipt, ReceiptStatus,
        capability::{CapabilityGrant, CapabilityRevoke, ObjectType, Permissions, Resource},
        identity::{IdentityCreated, IdentityType},
        policy::{
            DecisionBody, DecisionSignature, PolicyAction, PolicyContext, PolicyEffect, ResourceRef,
            ResourceType, SignedDecision,
        },
        process::ProcessExit,
        service::{Genesis, ServiceRegister, ServiceStart, ServiceType, Shutdown},
    },
    validate_chain,
};
use ed25519_dalek::SigningKey;

use super::*;

mod archive;
mod resume;
mod state;
mod units;

const ROOM: Limits = Limits { body_bytes_max: 1 << 20, reserve_only: false, full: false };
const SECOND: u64 = 1_000_000_000;

fn policy_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// Who submits in these tests, unless they say otherwise.
const SUPERVISOR: IdentityId = IdentityId([2; 32]);
const KEYS: IdentityId = IdentityId([5; 32]);

fn service(identity_id: IdentityId, name: &str) -> IdentityCreated {
    IdentityCreated {
        identity_id,
        name: name.into(),
        identity_type: IdentityType::Service,
        parent: None,
        public_key: PublicKey(identity_id.0),
        key_path: KeyPath::parse(&format!("/orbital/services/{name}")).unwrap(),
    }
}

fn genesis() -> (chain::Entry, Hash) {
    let other = PublicKey([1; 32]);
    let body = Genesis {
        version: 1,
        image_hash: Hash::of(b"image"),
        initial_capabilities: vec![grant(1, None, true)],
        genesis_time: AxiomTime(100 * SECOND),
        node_name: "node".into(),
        node_key: other,
        sequencer_key: other,
        policy_key: PublicKey(policy_key().verifying_key().to_bytes()),
        identity_key: other,
        identities: vec![service(SUPERVISOR, "supervisor"), service(KEYS, "keys")],
        admin: IdentityId([9; 32]),
        admin_uid: 0,
        rules: vec![],
    };
    let bytes = envelope(0, None, body).to_bytes().unwrap();
    genesis_entry(&bytes).unwrap()
}

fn envelope<T>(key: u8, authorization: Option<Hash>, body: T) -> Envelope<T> {
    Envelope { submitter: SUPERVISOR, key: EntryKey([key; 16]), authorization, body }
}

fn draft<T: chain::payload::Body>(key: u8, authorization: Option<Hash>, body: T) -> Draft {
    let entry_type = EntryType::from_code(T::ENTRY_TYPE).unwrap();
    Draft { entry_type, payload: envelope(key, authorization, body).to_bytes().unwrap() }
}

fn grant(id: u8, parent: Option<u8>, write: bool) -> CapabilityGrant {
    CapabilityGrant {
        capability_id: CapabilityId([id; 16]),
        grantor: IdentityId([2; 32]),
        grantee: IdentityId([3; 32]),
        resource: Resource { object_type: ObjectType::File, object_id: "/data".into() },
        permissions: Permissions { read: true, write, ..Permissions::default() },
        restrictions: None,
        parent: parent.map(|parent| CapabilityId([parent; 16])),
    }
}

fn receipt(key: u8) -> Draft {
    let body = Receipt {
        axiom_entry: AxiomRef { sequence: Sequence(0), hash: Hash::ZERO },
        inputs: vec![],
        outputs: vec![],
        environment: Hash::ZERO,
        status: ReceiptStatus::Success,
        proof: None,
    };
    draft(key, None, body)
}

fn request(n: u8) -> Hash {
    Hash::of(&[n])
}

fn delegate() -> PolicyAction {
    PolicyAction::DelegateCapability { capability: CapabilityId([1; 16]), to: IdentityId([3; 32]) }
}

/// A decision about request `n`, made at `time_s`, as the policy engine builds it.
fn body(n: u8, action: PolicyAction, effect: PolicyEffect, time_s: u64) -> Vec<u8> {
    base::cbor::encode(&DecisionBody {
        request_hash: request(n),
        requestor: IdentityId([3; 32]),
        action,
        resource: ResourceRef { resource_type: ResourceType::Capability, id: "x".into() },
        context: PolicyContext::default(),
        nonce: Nonce([n; 16]),
        policy_state_hash: Hash::ZERO,
        matched_rules: vec![],
        effect,
        deciding_rule: RuleId::default_deny(),
        conditions: vec![],
        timestamp: AxiomTime(time_s * SECOND),
        reason: None,
    })
}

fn sign(key: u8, bodies: &[Vec<u8>], index: usize) -> Draft {
    let tree = merkle::Tree::new(bodies.iter().map(|body| merkle::leaf(body)).collect()).unwrap();
    let signature = DecisionSignature {
        root: merkle::sign_root(&policy_key(), &tree.root()),
        index: index as u32,
        count: bodies.len() as u32,
        path: tree.path(index as u32).unwrap(),
    };
    draft(key, None, SignedDecision { body: bodies[index].clone(), signature })
}

fn decision(key: u8, n: u8, action: PolicyAction, effect: PolicyEffect, time_s: u64) -> Draft {
    sign(key, &[body(n, action, effect, time_s)], 0)
}

fn allow(key: u8, n: u8) -> Draft {
    decision(key, n, delegate(), PolicyEffect::Allow, 100)
}

fn unit<const N: usize>(entries: [Draft; N]) -> Unit {
    Unit { entries: entries.into() }
}

struct Bed {
    sequencer: Sequencer,
    log: Vec<chain::Entry>,
    now: Reading,
}

impl Bed {
    /// Genesis is in the log; Axiom time is 100 s.
    fn new() -> Self {
        let mut sequencer = Sequencer::new();
        let (entry, hash) = genesis();
        assert!(sequencer.replay(&entry.header, &entry.payload, hash));
        let now = Reading { wall_ns: 5, boot_ns: 1000 };
        sequencer.start(now);
        Self { sequencer, log: vec![entry], now }
    }

    fn after_s(&mut self, seconds: u64) -> &mut Self {
        self.now.boot_ns += seconds * SECOND;
        self
    }

    fn batch(&mut self, limits: Limits, source: Source, units: Vec<Unit>) -> Vec<UnitReply> {
        let batch = self.sequencer.batch(self.now, limits, source, units);
        self.log.extend(batch.entries.into_iter().map(|(entry, _)| entry));
        validate_chain(&self.log).unwrap();
        batch.replies
    }

    fn one(&mut self, unit: Unit) -> UnitReply {
        self.batch(ROOM, Source::Policy, vec![unit]).remove(0)
    }

    #[track_caller]
    fn refused(&mut self, unit: Unit, reason: RejectionReason) {
        let (length, state) = (self.log.len(), self.sequencer.state().hash());
        match self.one(unit) {
            UnitReply::Rejected(refusal) => assert_eq!(refusal.reason, reason, "{refusal}"),
            other => panic!("{other:?} instead of {reason:?}"),
        }
        assert_eq!((self.log.len(), self.sequencer.state().hash()), (length, state));
    }

    #[track_caller]
    fn accepted(&mut self, unit: Unit) -> Vec<AxiomRef> {
        match self.one(unit) {
            UnitReply::Accepted(entries) => entries,
            other => panic!("{other:?}"),
        }
    }
}

fn act(key: u8, n: u8, id: u8) -> Draft {
    draft(key, Some(request(n)), grant(id, None, true))
}

/// covers: AX-37, AX-39, AX-07
#[test]
fn a_decision_and_its_act_go_in_together_and_a_later_act_redeems_an_earlier_decision_once() {
    let mut bed = Bed::new();
    let together = bed.accepted(unit([allow(1, 1), act(2, 1, 10)]));
    assert_eq!(together.iter().map(|entry| entry.sequence.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(bed.log[2].reference(), together[1]);
    bed.accepted(unit([allow(3, 2)]));
    bed.accepted(unit([act(4, 2, 11)]));
    bed.refused(unit([act(5, 2, 12)]), RejectionReason::PolicyMismatch);
    bed.refused(unit([act(6, 1, 12)]), RejectionReason::PolicyMismatch);
    assert_eq!(bed.sequencer.state().capabilities.all().len(), 3);
}

/// covers: AX-40, AX-44, AX-57, ACT-12
#[test]
fn every_reason_of_refusal_can_be_provoked_and_leaves_nothing() {
    use RejectionReason as R;
    let mut bed = Bed::new();
    bed.accepted(unit([receipt(50)]));
    let garbage = Draft { entry_type: EntryType::Receipt, payload: vec![0xff; 9] };
    bed.refused(unit([garbage]), R::InvalidPayload);
    let long = Draft { entry_type: EntryType::Receipt, payload: vec![0; PAYLOAD_SIZE_BYTES_MAX + 1] };
    bed.refused(unit([long]), R::InvalidPayload);
    bed.refused(unit([]), R::InvalidPayload);
    bed.refused(unit([receipt(51), receipt(52)]), R::InvalidPayload);
    bed.refused(unit([allow(1, 1), act(2, 1, 1)]), R::InvalidPayload);
    bed.refused(unit([act(2, 9, 10)]), R::MissingPolicyDecision);
    bed.refused(unit([draft(2, None, grant(10, None, true))]), R::MissingPolicyDecision);
    bed.refused(unit([allow(1, 1), act(2, 9, 10)]), R::MissingPolicyDecision);
    bed.refused(
        unit([decision(1, 1, delegate(), PolicyEffect::Deny, 100), act(2, 1, 10)]),
        R::PolicyMismatch,
    );
    let other = PolicyAction::TerminateProcess { pid: ProcessId(1) };
    bed.refused(unit([decision(1, 1, other, PolicyEffect::Allow, 100), act(2, 1, 10)]), R::PolicyMismatch);
    let mut forged = allow(1, 1);
    let last = forged.payload.len() - 10;
    forged.payload[last] ^= 1;
    bed.refused(unit([forged]), R::InvalidPolicySignature);
    let exit = ProcessExit {
        pid: ProcessId(77),
        status: chain::payload::process::ExitStatus::Code(0),
        usage: Default::default(),
        refused: vec![],
    };
    bed.refused(unit([draft(2, None, exit)]), R::ResourceNotFound);
    let mut under = grant(11, Some(99), false);
    under.restrictions = None;
    bed.refused(unit([allow(1, 1), draft(2, Some(request(1)), under)]), R::ResourceNotFound);
    let mut same_key = receipt(50);
    same_key.payload = draft(50, None, ProcessExit { pid: ProcessId(1), ..exit_of(1) }).payload;
    bed.refused(unit([same_key]), R::DuplicateNonce);
    let full = Limits { full: true, ..ROOM };
    let reply = bed.batch(full, Source::Policy, vec![unit([receipt(60)])]).remove(0);
    assert!(matches!(reply, UnitReply::Rejected(Refusal { reason: R::Backpressure, .. })));
    assert_eq!(R::ALL.len(), 8);
}

fn exit_of(pid: u64) -> ProcessExit {
    let status = chain::payload::process::ExitStatus::Code(0);
    ProcessExit { pid: ProcessId(pid), status, usage: Default::default(), refused: vec![] }
}

/// covers: AX-37, ACT-12
#[test]
fn a_decision_expires_after_thirty_seconds_of_axiom_time() {
    let limit_s = DECISION_VALIDITY_NS / SECOND;
    let mut bed = Bed::new();
    bed.accepted(unit([allow(1, 1)]));
    bed.accepted(unit([allow(2, 2)]));
    bed.after_s(limit_s).accepted(unit([act(3, 1, 10)]));
    bed.after_s(1).refused(unit([act(4, 2, 11)]), RejectionReason::PolicyDecisionExpired);
    bed.refused(unit([allow(5, 3)]), RejectionReason::PolicyDecisionExpired);
    bed.refused(
        unit([decision(5, 3, delegate(), PolicyEffect::Allow, 200)]),
        RejectionReason::PolicyDecisionExpired,
    );
    bed.after_s(limit_s * 10).refused(unit([act(4, 2, 11)]), RejectionReason::MissingPolicyDecision);
}

/// covers: AX-41, ACT-11
#[test]
fn the_same_bytes_under_the_same_key_are_one_entry_for_ever() {
    let mut bed = Bed::new();
    let first = bed.accepted(unit([allow(1, 1), act(2, 1, 10)]));
    assert_eq!(bed.one(unit([allow(1, 1), act(2, 1, 10)])), UnitReply::Duplicate(first[1]));
    assert_eq!(bed.one(unit([act(2, 1, 10)])), UnitReply::Duplicate(first[1]));
    assert_eq!(bed.one(unit([allow(1, 1)])), UnitReply::Duplicate(first[0]));
    // Decided again for the same request: the act is in the log, no second decision is added.
    assert_eq!(bed.one(unit([allow(9, 1), act(2, 1, 10)])), UnitReply::Duplicate(first[1]));
    bed.refused(unit([allow(8, 1)]), RejectionReason::DuplicateNonce);
    let twice = bed.batch(ROOM, Source::Policy, vec![unit([receipt(30)]), unit([receipt(30)])]);
    let UnitReply::Accepted(entries) = &twice[0] else { panic!("{twice:?}") };
    assert_eq!(twice[1], UnitReply::Duplicate(entries[0]));
    assert_eq!(bed.log.len(), 4);
}

/// covers: AX-43, AX-14
#[test]
fn a_mixed_batch_refuses_its_bad_members_alone_and_answers_in_order() {
    let mut bed = Bed::new();
    let bodies: Vec<_> = (1..=5).map(|n| body(n, delegate(), PolicyEffect::Allow, 100)).collect();
    let units = vec![
        unit([sign(1, &bodies, 0), act(11, 1, 21)]),
        unit([sign(2, &bodies, 1), act(12, 9, 22)]),
        unit([sign(3, &bodies, 2), act(13, 3, 21)]),
        unit([receipt(40)]),
        unit([sign(5, &bodies, 4), act(15, 5, 25)]),
    ];
    let replies = bed.batch(ROOM, Source::Policy, units);
    let outcome: Vec<_> = replies
        .iter()
        .map(|reply| match reply {
            UnitReply::Accepted(entries) => {
                Ok(entries.iter().map(|entry| entry.sequence.0).collect::<Vec<_>>())
            }
            UnitReply::Rejected(refusal) => Err(refusal.reason),
            UnitReply::Duplicate(_) => Err(RejectionReason::DuplicateNonce),
        })
        .collect();
    use RejectionReason as R;
    // The third one grants an id that the first one has just granted.
    let expected =
        [Ok(vec![1, 2]), Err(R::MissingPolicyDecision), Err(R::InvalidPayload), Ok(vec![3]), Ok(vec![4, 5])];
    assert_eq!(outcome, expected);
}

/// covers: AX-37, AX-56
#[test]
fn the_supervisor_appends_its_own_types_and_nothing_else() {
    let mut bed = Bed::new();
    let register = ServiceRegister {
        name: "axiom".into(),
        version: "0.1.0".into(),
        service_type: ServiceType::Core,
        binary: Hash::ZERO,
        manifest: Hash::ZERO,
        key_path: KeyPath::parse("/orbital/services/axiom").unwrap(),
    };
    let start = |name: &str| ServiceStart {
        name: name.into(),
        pid: 2,
        binary: Hash::ZERO,
        restarts: 0,
        late: false,
        missing: vec![],
    };
    let units = vec![
        unit([draft(1, None, register.clone())]),
        unit([draft(2, None, start("axiom"))]),
        unit([draft(3, None, start("nobody"))]),
        unit([receipt(4)]),
        unit([allow(5, 1)]),
    ];
    let replies = bed.batch(ROOM, Source::Supervisor, units);
    let reasons: Vec<_> = replies
        .iter()
        .map(|reply| if let UnitReply::Rejected(refusal) = reply { Some(refusal.reason) } else { None })
        .collect();
    use RejectionReason::{MissingPolicyDecision, ResourceNotFound};
    let expected =
        [None, None, Some(ResourceNotFound), Some(MissingPolicyDecision), Some(MissingPolicyDecision)];
    assert_eq!(reasons, expected);
    bed.refused(unit([draft(6, None, register)]), MissingPolicyDecision);
}

/// covers: SUP-105
#[test]
fn the_supervisor_appends_in_its_own_name_and_in_nobody_elses() {
    let mut bed = Bed::new();
    let down = |submitter: IdentityId| {
        let body = Shutdown { reason: "x".into() };
        let envelope = Envelope { submitter, key: EntryKey([1; 16]), authorization: None, body };
        let payload = envelope.to_bytes().unwrap();
        unit([Draft { entry_type: EntryType::Shutdown, payload }])
    };
    // Another service, the admin, and somebody of whom nothing is known.
    for other in [KEYS, IdentityId([9; 32]), IdentityId([77; 32])] {
        match &bed.batch(ROOM, Source::Supervisor, vec![down(other)])[0] {
            UnitReply::Rejected(refusal) => {
                assert_eq!(refusal.reason, RejectionReason::MissingPolicyDecision, "{other}");
                assert!(refusal.text.contains("in its own name"), "{refusal}");
            }
            accepted => panic!("{other}: {accepted:?}"),
        }
    }
    let before = bed.sequencer.point();
    let own = bed.batch(ROOM, Source::Supervisor, vec![down(SUPERVISOR)]);
    assert!(matches!(own[0], UnitReply::Accepted(_)), "{own:?}");
    assert_eq!(before.next_sequence, Sequence(1), "what was refused left nothing");
}

/// A decision to start covers the restarts that follow; one about something else, or a denial, covers nothing.
#[test]
fn the_supervisor_cites_a_decision_more_than_once() {
    let mut bed = Bed::new();
    let control = PolicyAction::ControlService {
        service: "axiom".into(),
        operation: chain::payload::policy::ServiceOperation::Start,
    };
    let units = vec![
        unit([decision(1, 1, control.clone(), PolicyEffect::Allow, 100)]),
        unit([decision(2, 2, control, PolicyEffect::Deny, 100)]),
        unit([allow(3, 3)]),
    ];
    assert!(
        bed.batch(ROOM, Source::Policy, units).iter().all(|reply| matches!(reply, UnitReply::Accepted(_)))
    );
    let register = ServiceRegister {
        name: "axiom".into(),
        version: "0.1.0".into(),
        service_type: ServiceType::Core,
        binary: Hash::ZERO,
        manifest: Hash::ZERO,
        key_path: KeyPath::parse("/orbital/services/axiom").unwrap(),
    };
    let start = |restarts| ServiceStart {
        name: "axiom".into(),
        pid: 2,
        binary: Hash::ZERO,
        restarts,
        late: false,
        missing: vec![],
    };
    let units = vec![
        unit([draft(4, None, register)]),
        unit([draft(5, Some(request(1)), start(0))]),
        unit([draft(6, Some(request(1)), start(1))]),
        unit([draft(7, Some(request(99)), start(2))]),
        unit([draft(8, Some(request(2)), start(3))]),
        unit([draft(9, Some(request(3)), start(3))]),
    ];
    let replies = bed.batch(ROOM, Source::Supervisor, units);
    let accepted: Vec<_> = replies.iter().map(|reply| matches!(reply, UnitReply::Accepted(_))).collect();
    assert_eq!(accepted, [true, true, true, true, false, false]);
}

#[test]
fn only_what_takes_away_may_use_the_reserve() {
    let reserve = Limits { reserve_only: true, ..ROOM };
    let mut bed = Bed::new();
    let revoke = PolicyAction::RevokeCapability { capability: CapabilityId([1; 16]) };
    let take_back =
        CapabilityRevoke { capability: CapabilityId([1; 16]), by: IdentityId([3; 32]), reason: "x".into() };
    let units = vec![
        unit([allow(1, 1), act(2, 1, 10)]),
        unit([receipt(3)]),
        unit([decision(4, 4, revoke.clone(), PolicyEffect::Deny, 100)]),
        unit([decision(5, 5, revoke, PolicyEffect::Allow, 100), draft(6, Some(request(5)), take_back)]),
    ];
    let replies = bed.batch(reserve, Source::Policy, units);
    let accepted: Vec<_> = replies.iter().map(|reply| matches!(reply, UnitReply::Accepted(_))).collect();
    assert_eq!(accepted, [false, false, false, true]);
    let down = unit([draft(7, None, Shutdown { reason: "the disk is full".into() })]);
    assert!(matches!(bed.batch(reserve, Source::Supervisor, vec![down])[0], UnitReply::Accepted(_)));
    let narrow = Limits { body_bytes_max: 10, ..ROOM };
    assert!(matches!(bed.batch(narrow, Source::Policy, vec![unit([receipt(3)])])[0], UnitReply::Rejected(_)));
}

/// covers: AX-49, AX-50, AX-59, ACT-51
#[test]
fn folding_again_gives_the_same_state_and_times_do_not_matter() {
    let mut bed = Bed::new();
    bed.accepted(unit([allow(1, 1), draft(2, Some(request(1)), grant(10, Some(1), true))]));
    bed.accepted(unit([allow(3, 3), draft(4, Some(request(3)), grant(11, Some(10), false))]));
    let revoke = PolicyAction::RevokeCapability { capability: CapabilityId([10; 16]) };
    let take_back =
        CapabilityRevoke { capability: CapabilityId([10; 16]), by: IdentityId([3; 32]), reason: "x".into() };
    bed.accepted(unit([
        decision(5, 5, revoke, PolicyEffect::Allow, 100),
        draft(6, Some(request(5)), take_back),
    ]));
    let state = bed.sequencer.state();
    let revoked: Vec<bool> = state.capabilities.all().values().map(|record| record.revoked).collect();
    assert_eq!(revoked, [false, true, true]);
    let mut again = Sequencer::new();
    let mut later = ControlState::default();
    for entry in &bed.log {
        assert!(again.replay(&entry.header, &entry.payload, entry.hash()));
        let payload =
            chain::payload::Payload::decode(entry.header.entry_type.code(), &entry.payload).unwrap();
        later.apply(entry.header.sequence, &payload);
    }
    assert_eq!((again.state().hash(), later.hash()), (state.hash(), state.hash()));
    assert_eq!(again.point(), bed.sequencer.point());
    assert_eq!(ControlState::from_bytes(&state.to_bytes()).as_ref(), Ok(state));
    // What the replay remembers: keys and decisions, not the state alone.
    again.start(bed.now);
    let replies =
        again.batch(bed.now, ROOM, Source::Policy, vec![unit([allow(1, 1)]), unit([act(7, 1, 12)])]).replies;
    assert!(matches!(replies[0], UnitReply::Duplicate(_)));
    assert!(
        matches!(&replies[1], UnitReply::Rejected(refusal) if refusal.reason == RejectionReason::PolicyMismatch)
    );
}

/// covers: AX-29
#[test]
fn genesis_is_the_first_entry_and_pins_the_policy_key() {
    let (entry, hash) = genesis();
    assert_eq!((entry.header.sequence, entry.header.prev_hash), (Sequence(0), Hash::ZERO));
    assert_eq!((entry.header.timestamp, entry.hash()), (AxiomTime(100 * SECOND), hash));
    assert!(matches!(genesis_entry(b"\x00"), Err(GenesisError::Payload(_))));
    let mut bed = Bed::new();
    let pinned = bed.sequencer.state().pinned.clone().unwrap();
    assert_eq!(pinned.policy_key.0, policy_key().verifying_key().to_bytes());
    let again = Draft { entry_type: EntryType::Genesis, payload: entry.payload.clone() };
    assert_eq!(bed.one(unit([again.clone()])), UnitReply::Duplicate(entry.reference()));
    let mut other = again;
    other.payload[40] ^= 1;
    bed.refused(unit([other]), RejectionReason::MissingPolicyDecision);
}
