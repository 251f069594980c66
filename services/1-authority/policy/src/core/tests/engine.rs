//! The engine between its channels and the sequencer, with a log that keeps every byte.

use base::{AxiomTime, DurationNs, EntryKey, Hash, Nonce, PublicKey, RuleId, Signature, cbor};
use chain::{
    merkle::sign_root,
    payload::{
        Body, Envelope, Payload, Receipt, ReceiptStatus,
        identity::{IdentityCreated, IdentityType, KeyOperation, KeyUsage},
        policy::{
            PolicyAction, PolicyCondition, PolicyEffect, PolicyRequest, PolicyRule, PolicyRuleAdded,
            PolicyRuleRemoved, SignedDecision,
        },
    },
};
use ed25519_dalek::Signer;

use super::support::{
    ADMIN, ALICE, BOB, IDENTITY, KEYS, NOW, POLICY, SECOND, allow, at, born, genesis, id, key_of, public,
    request, rule, rule_id,
};
use crate::core::{
    Engine, Entry, Item, Outcome, PolicyError, PolicyState, Refusal, Settled, Unit,
    limits::DENIALS_SINGLE_PER_S,
    seal,
    verify::{Replay, Verification},
};

/// An engine and a sequencer that accepts what it is told to.
pub(super) struct Node {
    pub(super) engine: Engine,
    pub(super) log: Vec<(u32, Vec<u8>)>,
    pub(super) now: AxiomTime,
    pub(super) nonce: u8,
}

const GENESIS: u32 = 0;
const POLICY_KEY: u8 = 102;

pub(super) fn entry<T: Body>(by: u8, key: u8, authorization: Option<Hash>, body: T) -> Entry {
    let envelope = Envelope { submitter: id(by), key: EntryKey([key; 16]), authorization, body };
    Entry { entry_type: T::ENTRY_TYPE, payload: envelope.to_bytes().unwrap() }
}

impl Node {
    pub(super) fn new(rules: Vec<PolicyRule>) -> Self {
        let payload = genesis(rules);
        let Payload::Genesis(envelope) = &payload else { panic!() };
        let mut engine = Engine::new(PolicyState::default());
        let bytes = envelope.to_bytes().unwrap();
        engine.apply_entry(at(0), &payload, &bytes);
        Self { engine, log: vec![(GENESIS, bytes)], now: NOW, nonce: 0 }
    }

    pub(super) fn fresh(&mut self, channel: &str, who: u8, action: PolicyAction) -> PolicyRequest {
        self.nonce += 1;
        let mut request = request(who, action);
        request.context.service = channel.to_owned();
        request.nonce = Nonce([self.nonce; 16]);
        request
    }

    pub(super) fn offer(&mut self, channel: &str, item: &Item) -> Outcome {
        self.engine.propose(channel, item, self.now)
    }

    /// Writes the units as one group and tells the engine.
    pub(super) fn write(&mut self, units: Vec<Unit>) -> Vec<Settled> {
        let sign = |root: &Hash| sign_root(&key_of(POLICY_KEY), root);
        let sealed = seal(units, id(POLICY), &sign).unwrap();
        sealed
            .into_iter()
            .map(|unit| {
                let first = self.log.len() as u64;
                self.log.extend(unit.proposals.iter().map(|p| (p.entry_type, p.payload.clone())));
                let entries: Vec<_> = (first..self.log.len() as u64).map(at).collect();
                self.engine.committed(unit.id, &entries).unwrap()
            })
            .collect()
    }

    pub(super) fn plan(&mut self, channel: &str, item: &Item) -> Unit {
        match self.offer(channel, item) {
            Outcome::Planned(unit) => unit,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn done(&mut self, channel: &str, item: &Item) -> Settled {
        let unit = self.plan(channel, item);
        self.write(vec![unit]).remove(0)
    }

    pub(super) fn refusal(&mut self, channel: &str, item: &Item) -> Refusal {
        match self.offer(channel, item) {
            Outcome::Refused { refusal, .. } => refusal,
            other => panic!("{other:?}"),
        }
    }

    /// Replays the whole log: every decision must come out as recorded, and the state must be the engine's.
    pub(super) fn audit(&self) -> usize {
        let mut replay = Replay::default();
        let mut decisions = 0;
        for (sequence, (entry_type, bytes)) in self.log.iter().enumerate() {
            let found = replay.step(at(sequence as u64), *entry_type, bytes).unwrap();
            assert!(matches!(found, None | Some(Verification::Verified)), "{sequence}: {found:?}");
            decisions += usize::from(found.is_some());
        }
        assert_eq!(replay.state_hash(), self.engine.confirmed().state_hash());
        assert_eq!(replay.state().rates(), self.engine.confirmed().rates(), "rate limits survive a replay");
        assert_eq!(replay.state().rates(), self.engine.speculative().rates());
        assert_eq!(self.engine.speculative().state_hash(), self.engine.confirmed().state_hash());
        decisions
    }
}

pub(super) fn add_rule(node: &mut Node, who: u8, new: PolicyRule) -> Item {
    let request = node.fresh("policy", who, PolicyAction::ModifyPolicy { rule: Box::new(new.clone()) });
    let body = PolicyRuleAdded { rule: new, created_by: id(who) };
    Item::Act {
        entry: entry(POLICY, node.nonce, Some(request.hash()), body),
        request: cbor::encode(&request),
    }
}

fn remove_rule(node: &mut Node, who: u8, stored: PolicyRule) -> Item {
    let body = PolicyRuleRemoved { rule: stored.id.clone(), removed_by: id(who) };
    let request = node.fresh("policy", who, PolicyAction::ModifyPolicy { rule: Box::new(stored) });
    Item::Act {
        entry: entry(POLICY, node.nonce, Some(request.hash()), body),
        request: cbor::encode(&request),
    }
}

pub(super) fn sign_request(node: &mut Node, who: u8) -> PolicyRequest {
    let key_path = base::KeyPath::parse("/orbital/users/bob/signing").unwrap();
    node.fresh("keys", who, PolicyAction::Sign { key_path, message_hash: Hash::of(b"m") })
}

pub(super) fn usage(key: u8, request: &PolicyRequest, message: &[u8]) -> Entry {
    let PolicyAction::Sign { key_path, .. } = &request.action else { panic!() };
    let body = KeyUsage {
        identity: request.requestor,
        key_path: key_path.clone(),
        operation: KeyOperation::Sign,
        message_hash: Some(Hash::of(message)),
        authorization: at(0),
        output_hash: None,
        refused: None,
        reason: None,
        epoch: None,
        rotation: None,
    };
    entry(KEYS, key, Some(request.hash()), body)
}

pub(super) fn always() -> PolicyRule {
    allow(PolicyCondition::Always)
}

/// covers: POL-06, POL-07, POL-50, POL-23, POL-25
#[test]
fn rules_come_and_go_through_the_log_and_the_group_is_signed_once() {
    let mut node = Node::new(vec![always()]);
    let against = rule(
        "against",
        500,
        PolicyEffect::Deny,
        PolicyCondition::Action(chain::payload::policy::ActionMatcher::Kind(
            chain::payload::policy::ActionKind::Sign,
        )),
    );
    let add = add_rule(&mut node, ADMIN, against.clone());
    let settled = node.done("policy", &add);
    assert_eq!((settled.decision, settled.entry, settled.allowed), (Some(at(1)), Some(at(2)), true));
    assert_eq!(node.engine.confirmed().rules().get(&rule_id("against")).unwrap().created_at, Some(at(2)));
    let requests: Vec<_> = (0..3).map(|_| sign_request(&mut node, BOB)).collect();
    let units: Vec<_> =
        requests.iter().map(|r| node.plan("keys", &Item::Evaluate { request: cbor::encode(r) })).collect();
    assert!(node.write(units).iter().all(|settled| !settled.allowed && settled.decision.is_some()));
    let remove = remove_rule(&mut node, ADMIN, against);
    node.done("policy", &remove);
    let request = sign_request(&mut node, BOB);
    assert!(node.done("keys", &Item::Evaluate { request: cbor::encode(&request) }).allowed);
    assert_eq!(node.audit(), 6);
    let signatures: Vec<_> = node.log[3..6].iter().map(|(_, bytes)| decision_of(bytes).signature).collect();
    assert!(signatures.iter().all(|s| s.root == signatures[0].root && s.count == 3 && s.path.len() == 2));
}

pub(super) fn decision_of(bytes: &[u8]) -> SignedDecision {
    Envelope::<SignedDecision>::from_bytes(bytes).unwrap().body
}

/// covers: POL-06, POL-28, POL-56
#[test]
fn a_change_of_rules_needs_a_system_class_caller_a_valid_rule_and_a_free_id() {
    let mut node = Node::new(vec![always()]);
    let new = |id: &str| rule(id, 5, PolicyEffect::Deny, PolicyCondition::Always);
    let mut expect = |who, change: PolicyRule, reason: &str| {
        let item = add_rule(&mut node, who, change);
        assert_eq!(node.refusal("policy", &item).reason(), reason);
        assert_eq!((node.engine.in_flight(), node.engine.speculative().rules().len()), (0, 1));
    };
    expect(BOB, new("mine"), "Unauthorized");
    expect(ADMIN, new("allow"), "DuplicateRule");
    expect(ADMIN, new(RuleId::DEFAULT_DENY), "InvalidRule");
    let removal = remove_rule(&mut node, ADMIN, new("nowhere"));
    assert_eq!(node.refusal("policy", &removal).reason(), "RuleNotFound");
    let other = PolicyRule { priority: 6, ..always() };
    let removal = remove_rule(&mut node, ADMIN, other);
    assert_eq!(
        node.refusal("policy", &removal),
        Refusal::PolicyMismatch,
        "evaluated with another rule than stored"
    );
}

/// covers: POL-03
#[test]
fn a_decision_is_redeemed_once_by_the_entry_it_allows_within_its_validity() {
    let mut node = Node::new(vec![always()]);
    let request = sign_request(&mut node, BOB);
    let evaluated = node.done("keys", &Item::Evaluate { request: cbor::encode(&request) });
    let decision = evaluated.decision.unwrap().sequence;
    let redeem = |entry: Entry| Item::Redeem { decision, entry };
    assert_eq!(node.refusal("keys", &redeem(usage(1, &request, b"other"))), Refusal::PolicyMismatch);
    let reason = node.refusal("identity", &redeem(usage(1, &request, b"m"))).reason();
    assert_eq!(reason, "Unauthorized");
    node.now = NOW.saturating_add(30 * SECOND);
    assert_eq!(node.refusal("keys", &redeem(usage(1, &request, b"m"))), Refusal::DecisionExpired);
    node.now = NOW.saturating_add(30 * SECOND - 1);
    let unit = node.plan("keys", &redeem(usage(1, &request, b"m")));
    assert_eq!(node.refusal("keys", &redeem(usage(2, &request, b"m"))), Refusal::DecisionUsed);
    assert!(matches!(node.offer("keys", &redeem(usage(1, &request, b"m"))), Outcome::Busy { .. }));
    let settled = node.write(vec![unit]).remove(0);
    assert_eq!((settled.decision, settled.entry), (None, Some(at(2))));
    let again = node.offer("keys", &redeem(usage(1, &request, b"m")));
    assert_eq!(again, Outcome::Done { decision: Some(at(1)), entry: at(2) });
    assert_eq!(node.audit(), 1);
}

/// covers: ACT-11
#[test]
fn an_act_repeated_with_the_same_payload_is_done_and_with_another_refused_also_after_a_restart() {
    let mut node = Node::new(vec![always()]);
    let request = sign_request(&mut node, BOB);
    let act = |entry| Item::Act { request: cbor::encode(&request), entry };
    node.done("keys", &act(usage(1, &request, b"m")));
    let mut replay = Replay::default();
    for (sequence, (entry_type, bytes)) in node.log.iter().enumerate() {
        replay.step(at(sequence as u64), *entry_type, bytes).unwrap();
    }
    for engine in [None, Some(Engine::new(replay.state().clone()))] {
        node.engine = engine.unwrap_or(std::mem::take(&mut node.engine));
        let done = Outcome::Done { decision: Some(at(1)), entry: at(2) };
        assert_eq!(node.offer("keys", &act(usage(1, &request, b"m"))), done);
        assert_eq!(node.refusal("keys", &act(usage(2, &request, b"m"))), Refusal::DecisionUsed);
    }
}

#[test]
fn an_act_that_another_rule_decides_than_it_was_made_for_leaves_nothing() {
    let mut node = Node::new(vec![always()]);
    let request = sign_request(&mut node, BOB);
    let by = |rule: &str| Item::ActBy {
        request: cbor::encode(&request),
        entry: usage(1, &request, b"m"),
        rule: RuleId::new(rule).unwrap(),
    };
    let other = node.refusal("keys", &by("another"));
    assert_eq!(other, Refusal::RuleDiffers(always().id));
    assert_eq!((node.log.len(), other.reason()), (1, "RuleDiffers"));
    // The same request is as good as before.
    let settled = node.done("keys", &by(always().id.as_str()));
    assert!(settled.allowed && settled.entry.is_some());
    // A no is a no, whatever it was made for.
    let mut node = Node::new(vec![]);
    let request = sign_request(&mut node, BOB);
    let rule = RuleId::default_deny();
    let item = Item::ActBy { request: cbor::encode(&request), entry: usage(1, &request, b"m"), rule };
    let unit = node.plan("keys", &item);
    assert!(unit.entry.is_none() && !unit.allows);
}

/// covers: ACT-10
#[test]
fn a_denied_act_leaves_its_decision_alone() {
    let mut node = Node::new(vec![]);
    let request = sign_request(&mut node, BOB);
    let unit =
        node.plan("keys", &Item::Act { request: cbor::encode(&request), entry: usage(1, &request, b"m") });
    assert!(unit.entry.is_none() && !unit.allows);
    let settled = node.write(vec![unit]).remove(0);
    assert_eq!((settled.entry, settled.allowed), (None, false));
    assert_eq!(node.audit(), 1);
}

/// covers: POL-51
#[test]
fn a_service_speaks_for_itself_and_for_what_its_row_names() {
    let mut node = Node::new(vec![always()]);
    let receipt = || Receipt {
        axiom_entry: at(0),
        inputs: vec![],
        outputs: vec![],
        environment: Hash::ZERO,
        status: ReceiptStatus::Success,
        proof: None,
    };
    let record = |entry| Item::Record { entry };
    assert!(matches!(node.offer("keys", &record(entry(KEYS, 1, None, receipt()))), Outcome::Planned(_)));
    assert_eq!(node.refusal("keys", &record(entry(BOB, 1, None, receipt()))).reason(), "Unauthorized");
    let cites = entry(KEYS, 1, Some(Hash::ZERO), receipt());
    assert_eq!(node.refusal("keys", &record(cites)), Refusal::PolicyMismatch);
    let person = born(50, "carol", IdentityType::User, Some(ADMIN), "/orbital/users/carol");
    let created = |by| entry(by, 1, None, person.clone());
    assert_eq!(node.refusal("identity", &record(created(IDENTITY))).reason(), "Unauthorized");
    let mut foreign = sign_request(&mut node, BOB);
    assert_eq!(
        node.refusal("identity", &Item::Evaluate { request: cbor::encode(&foreign) }).reason(),
        "Unauthorized"
    );
    foreign.context.service = "identity".to_owned();
    assert_eq!(
        node.refusal("identity", &Item::Evaluate { request: cbor::encode(&foreign) }).reason(),
        "Unauthorized"
    );
    assert_eq!(node.refusal("keys", &Item::Evaluate { request: vec![0] }).reason(), "InvalidRequest");
    let long = vec![0; crate::core::limits::REQUEST_BYTES_MAX + 1];
    assert!(node.refusal("keys", &Item::Evaluate { request: long }).to_string().contains("at most"));
}

/// covers: POL-10, POL-54
#[test]
fn a_wrong_signature_is_refused_and_leaves_a_record() {
    let mut node = Node::new(vec![always()]);
    let mut request = sign_request(&mut node, BOB);
    request.signature = Some(Signature(key_of(ALICE).sign(&request.signed_bytes()).to_bytes()));
    let Outcome::Refused { refusal, record } =
        node.offer("keys", &Item::Evaluate { request: cbor::encode(&request) })
    else {
        panic!()
    };
    assert_eq!(refusal, Refusal::Policy(PolicyError::InvalidSignature));
    node.write(vec![record.unwrap()]);
    assert_eq!(node.log.last().unwrap().0, 89);
    assert_eq!(node.audit(), 0);
}

/// A yes is worth nothing: it is not recorded, uses up no rate, and the act is decided again. A no is a denial like any.
#[test]
fn a_preflight_leaves_a_trace_only_if_the_answer_is_no() {
    let once = PolicyCondition::RateLimit { count: 1, window: DurationNs(SECOND) };
    let mut node = Node::new(vec![allow(once)]);
    let first = sign_request(&mut node, BOB);
    let ask = |request: &PolicyRequest| Item::Preflight { request: cbor::encode(request) };
    for _ in 0..3 {
        assert_eq!(node.offer("keys", &ask(&first)), Outcome::Permitted);
        assert_eq!((node.engine.in_flight(), node.log.len()), (0, 1));
    }
    let act = Item::Act { request: cbor::encode(&first), entry: usage(1, &first, b"m") };
    assert!(node.done("keys", &act).allowed);
    let second = sign_request(&mut node, BOB);
    assert!(!node.done("keys", &ask(&second)).allowed, "the rate is used up");
    assert!(!decision_of(&node.log.last().unwrap().1).decode_body().unwrap().allows());
    let third = sign_request(&mut node, BOB);
    assert_eq!(node.refusal("identity", &ask(&third)).reason(), "Unauthorized");
    assert_eq!(node.audit(), 2);
}

/// covers: POL-48
#[test]
fn denials_beyond_twenty_a_second_are_counted_into_one() {
    let mut node = Node::new(vec![]);
    assert!(!node.engine.counts_denials());
    for n in 0..DENIALS_SINGLE_PER_S + 7 {
        let request = sign_request(&mut node, BOB);
        match node.offer("keys", &Item::Evaluate { request: cbor::encode(&request) }) {
            Outcome::Planned(unit) if n < DENIALS_SINGLE_PER_S => drop(node.write(vec![unit])),
            Outcome::Busy { retry_after_ms } if n >= DENIALS_SINGLE_PER_S => assert_eq!(retry_after_ms, 1000),
            other => panic!("{n}: {other:?}"),
        }
    }
    assert!(node.engine.tick(node.now).is_empty() && node.engine.counts_denials());
    node.now = NOW.saturating_add(SECOND);
    let units = node.engine.tick(node.now);
    assert_eq!((units.len(), node.engine.counts_denials()), (1, false));
    node.write(units);
    let last = decision_of(&node.log.last().unwrap().1).decode_body().unwrap();
    assert!(last.reason.unwrap().ends_with("[and refused as often: 6]"));
    assert!(node.engine.tick(node.now).is_empty());
    assert_eq!(node.audit(), DENIALS_SINGLE_PER_S as usize + 1);
}

/// covers: POL-48, POL-49
#[test]
fn what_depends_on_a_unit_in_flight_waits_and_a_rejection_leaves_no_trace() {
    let mut node = Node::new(vec![always()]);
    let add = add_rule(&mut node, ADMIN, rule("no", 500, PolicyEffect::Deny, PolicyCondition::Always));
    let unit = node.plan("policy", &add);
    let request = sign_request(&mut node, BOB);
    let ask = Item::Evaluate { request: cbor::encode(&request) };
    assert_eq!(node.offer("keys", &ask), Outcome::Wait);
    assert_eq!(node.engine.rejected(unit.id), Ok(vec![]));
    assert_eq!(node.engine.speculative().state_hash(), node.engine.confirmed().state_hash());
    assert!(node.done("keys", &ask).allowed);
    assert_eq!(node.audit(), 1);
}

/// covers: POL-35, POL-49
#[test]
fn a_rate_limit_holds_across_what_is_in_flight_and_for_its_requestor_alone() {
    let limit = PolicyCondition::RateLimit { count: 1, window: DurationNs(SECOND) };
    let mut node = Node::new(vec![allow(limit)]);
    let ask = |node: &mut Node, who| {
        let request = sign_request(node, who);
        Item::Evaluate { request: cbor::encode(&request) }
    };
    let (first, second, third) = (ask(&mut node, BOB), ask(&mut node, BOB), ask(&mut node, ALICE));
    let unit = node.plan("keys", &first);
    assert_eq!(node.offer("keys", &second), Outcome::Wait);
    let other = node.plan("keys", &third);
    assert_eq!(node.engine.rejected(unit.id), Ok(vec![]), "the other does not depend on it");
    let settled = node.write(vec![other]);
    assert!(settled[0].allowed);
    assert!(node.done("keys", &second).allowed, "the rejected one does not count");
    let last = ask(&mut node, BOB);
    assert!(!node.done("keys", &last).allowed);
    assert_eq!(node.audit(), 3);
}

#[test]
fn results_come_in_order_and_a_lost_channel_forgets_what_was_in_flight() {
    let mut node = Node::new(vec![always()]);
    let requests: Vec<_> = (0..3).map(|_| sign_request(&mut node, BOB)).collect();
    let item =
        |r: &PolicyRequest| Item::Act { request: cbor::encode(r), entry: usage(r.nonce.0[0], r, b"m") };
    let units: Vec<_> = requests.iter().map(|r| node.plan("keys", &item(r))).collect();
    assert_eq!(node.engine.abandon(), units.iter().map(|unit| unit.id).collect::<Vec<_>>());
    assert!(node.engine.committed(units[0].id, &[at(1), at(2)]).is_err());
    let unit = node.plan("keys", &item(&requests[0]));
    let next = node.plan("keys", &item(&requests[1]));
    assert!(node.engine.committed(next.id, &[at(1), at(2)]).is_err());
    assert!(unit.id > units[2].id);
}

/// covers: POL-23, POL-49
#[test]
fn any_change_of_a_recorded_decision_is_found() {
    let mut node = Node::new(vec![always()]);
    let request = sign_request(&mut node, BOB);
    node.done("keys", &Item::Evaluate { request: cbor::encode(&request) });
    let good = decision_of(&node.log[1].1);
    let state = {
        let mut replay = Replay::default();
        replay.step(at(0), GENESIS, &node.log[0].1).unwrap();
        replay.state().clone()
    };
    use crate::core::verify::verify;
    assert_eq!(verify(&state, &good), Verification::Verified);
    for byte in 0..good.body.len() {
        let mut bad = good.clone();
        bad.body[byte] ^= 1;
        assert_ne!(verify(&state, &bad), Verification::Verified, "byte {byte}");
    }
    // Signed by the engine's own key all the same: the evaluation tells.
    let mut lie = good.decode_body().unwrap();
    lie.effect = PolicyEffect::Deny;
    let body = cbor::encode(&lie);
    let root = sign_root(&key_of(POLICY_KEY), &chain::merkle::leaf(&body));
    let signed = SignedDecision {
        body,
        signature: chain::payload::policy::DecisionSignature { root, ..good.signature },
    };
    let Verification::Mismatch { recorded, expected } = verify(&state, &signed) else { panic!() };
    assert_eq!((recorded.effect, expected.effect), (PolicyEffect::Deny, PolicyEffect::Allow));
    assert_eq!(public(POLICY_KEY), PublicKey(key_of(POLICY_KEY).verifying_key().to_bytes()));
}

/// covers: POL-38
#[test]
fn identities_made_in_flight_are_known_afterwards() {
    let mut node = Node::new(vec![always()]);
    let person: IdentityCreated = born(50, "carol", IdentityType::User, Some(ADMIN), "/orbital/users/carol");
    let request = node.fresh(
        "identity",
        ADMIN,
        PolicyAction::CreateIdentity { parent: id(ADMIN), name: "carol".to_owned() },
    );
    let act = Item::Act {
        entry: entry(IDENTITY, 1, Some(request.hash()), person.clone()),
        request: cbor::encode(&request),
    };
    let unit = node.plan("identity", &act);
    let carols = sign_request(&mut node, 50);
    let ask = Item::Evaluate { request: cbor::encode(&carols) };
    assert_eq!(node.offer("keys", &ask), Outcome::Wait);
    node.write(vec![unit]);
    assert!(node.done("keys", &ask).allowed);
    assert_eq!(node.audit(), 2);
}
