//! The engine between sending and knowing: what waits, what is evaluated again, what is counted once.

use base::{DurationNs, Sequence, TokenId, cbor};
use chain::payload::{
    Payload, Receipt, ReceiptStatus,
    identity::{IdentityChange, IdentityStatus, IdentityUpdated},
    policy::{PolicyAction, PolicyCondition, PolicyEffect, PolicyRequest},
};

use super::{
    engine::{Node, add_rule, always, decision_of, entry, sign_request, usage},
    support::{ADMIN, ALICE, BOB, IDENTITY, KEYS, NOW, SECOND, added, allow, at, id, rule, status},
};
use crate::core::{
    Entry, Item, Outcome, Refusal,
    limits::{DENIALS_SINGLE_PER_S, REQUEST_BYTES_MAX, UNITS_IN_FLIGHT_MAX},
};

fn ask(request: &PolicyRequest) -> Item {
    Item::Evaluate { request: cbor::encode(request) }
}

fn act(request: &PolicyRequest) -> Item {
    Item::Act { request: cbor::encode(request), entry: usage(request.nonce.0[0], request, b"m") }
}

fn receipt(key: u8) -> Item {
    let body = Receipt {
        axiom_entry: at(0),
        inputs: vec![],
        outputs: vec![],
        environment: base::Hash::ZERO,
        status: ReceiptStatus::Success,
        proof: None,
    };
    Item::Record { entry: entry(KEYS, key, None, body) }
}

fn update(node: &mut Node, action: PolicyAction, change: IdentityChange) -> Item {
    let request = node.fresh("identity", BOB, action);
    let body = IdentityUpdated { identity: id(ALICE), change };
    Item::Act {
        entry: entry(IDENTITY, node.nonce, Some(request.hash()), body),
        request: cbor::encode(&request),
    }
}

/// So many refusals in the current second that the next is only counted.
fn use_up_denials(node: &mut Node, who: u8) {
    for _ in 0..DENIALS_SINGLE_PER_S {
        let request = sign_request(node, who);
        assert!(!node.done("keys", &ask(&request)).allowed);
    }
}

fn last_reason(node: &Node) -> String {
    decision_of(&node.log.last().unwrap().1).decode_body().unwrap().reason.unwrap()
}

#[test]
fn so_many_units_are_in_flight_and_one_more_waits() {
    let mut node = Node::new(vec![always()]);
    let first = node.plan("keys", &receipt(0));
    for _ in 1..UNITS_IN_FLIGHT_MAX {
        node.plan("keys", &receipt(0));
    }
    assert_eq!(node.engine.in_flight(), UNITS_IN_FLIGHT_MAX);
    assert_eq!(node.offer("keys", &receipt(0)), Outcome::Wait);
    assert_eq!(node.engine.committed(first.id, &[at(1)]).unwrap().entry, Some(at(1)));
    node.plan("keys", &receipt(0));
}

#[test]
fn a_change_of_a_principal_holds_everything_and_a_token_nothing() {
    let mut node = Node::new(vec![always()]);
    let (old, new) = (IdentityStatus::Active, IdentityStatus::Suspended);
    let token =
        IdentityChange::TokenIssued { token: TokenId([0; 16]), channel: "c".to_owned(), expires_at: NOW };
    let issue = update(&mut node, PolicyAction::Authenticate { identity: id(ALICE) }, token);
    let suspension = IdentityChange::Status { old, new, by: id(BOB), reason: String::new() };
    let suspend = update(&mut node, PolicyAction::ModifyIdentity { identity: id(ALICE) }, suspension);
    let request = sign_request(&mut node, ALICE);
    let issued = node.plan("identity", &issue);
    let suspended = node.plan("identity", &suspend);
    assert_eq!(node.offer("keys", &ask(&request)), Outcome::Wait);
    assert!(node.engine.tick(node.now).is_empty());
    node.write(vec![issued, suspended]);
    assert!(!node.done("keys", &ask(&request)).allowed);
    assert_eq!(node.audit(), 3);
}

#[test]
fn after_a_rejection_what_comes_out_otherwise_is_sent_again_in_its_place() {
    let mut node = Node::new(vec![always()]);
    let (bobs, alices) = (sign_request(&mut node, BOB), sign_request(&mut node, ALICE));
    let rejected = node.plan("keys", &receipt(1));
    let (first, second) = (node.plan("keys", &act(&bobs)), node.plan("keys", &act(&alices)));
    let against_bob = PolicyCondition::Identity(chain::payload::policy::IdentityMatcher::Exact(id(BOB)));
    let new = added(rule("against", 500, PolicyEffect::Deny, against_bob));
    node.engine.apply_entry(at(1), &new, b"");
    let again = node.engine.rejected(rejected.id).unwrap();
    // The second names another state and allows as before.
    let told: Vec<_> = again.iter().map(|unit| (unit.id, unit.allows, unit.entry.is_some())).collect();
    assert_eq!(told, [(first.id, false, false), (second.id, true, true)]);
    let settled = node.engine.committed(first.id, &[at(2)]).unwrap();
    assert_eq!((settled.decision, settled.entry, settled.allowed), (Some(at(2)), None, false));
    let settled = node.engine.committed(second.id, &[at(3), at(4)]).unwrap();
    assert_eq!((settled.decision, settled.entry, settled.allowed), (Some(at(3)), Some(at(4)), true));
}

#[test]
fn a_refusal_that_stands_for_others_stays_as_it_was_sent() {
    let mut node = Node::new(vec![]);
    use_up_denials(&mut node, BOB);
    let counted = sign_request(&mut node, BOB);
    assert!(matches!(node.offer("keys", &ask(&counted)), Outcome::Busy { .. }));
    node.now = NOW.saturating_add(SECOND);
    let rejected = node.plan("keys", &receipt(1));
    let next = sign_request(&mut node, BOB);
    let unit = node.plan("keys", &ask(&next));
    assert_eq!(node.engine.rejected(rejected.id), Ok(vec![]));
    node.write(vec![unit]);
    assert!(last_reason(&node).ends_with("[and refused as often: 1]"), "{}", last_reason(&node));
    assert_eq!(node.audit(), DENIALS_SINGLE_PER_S as usize + 1);
}

#[test]
fn a_duplicate_is_settled_by_the_entry_that_stands_in_the_log() {
    let mut node = Node::new(vec![always()]);
    let request = sign_request(&mut node, BOB);
    let (first, second) = (node.plan("keys", &receipt(1)), node.plan("keys", &act(&request)));
    let (settled, again) = node.engine.duplicate(first.id, &[at(7)]).unwrap();
    assert_eq!((settled.decision, settled.entry, settled.allowed), (None, Some(at(7)), true));
    assert_eq!((again, node.engine.in_flight()), (vec![], 1));
    assert!(node.engine.duplicate(first.id, &[at(7)]).is_err());
    assert_ne!(first.id, second.id);
}

#[test]
fn what_the_feed_tells_before_the_result_counts_once() {
    let limit = PolicyCondition::RateLimit { count: 3, window: DurationNs(SECOND) };
    let mut node = Node::new(vec![allow(limit)]);
    let request = sign_request(&mut node, BOB);
    let unit = node.plan("keys", &act(&request));
    let body: chain::payload::policy::DecisionBody = cbor::decode(unit.decision.as_ref().unwrap()).unwrap();
    let signed = chain::payload::policy::SignedDecision {
        body: cbor::encode(&body),
        signature: chain::payload::policy::DecisionSignature {
            root: base::Signature([0; 64]),
            index: 0,
            count: 1,
            path: vec![],
        },
    };
    let Entry { entry_type, payload } = unit.entry.clone().unwrap();
    let decision = Payload::PolicyDecision(super::support::envelope(signed));
    node.engine.apply_entry(at(1), &decision, b"");
    node.engine.apply_entry(at(2), &Payload::decode(entry_type, &payload).unwrap(), &payload);
    node.engine.committed(unit.id, &[at(1), at(2)]).unwrap();
    for state in [node.engine.confirmed(), node.engine.speculative()] {
        assert_eq!((state.rates().events(), state.position()), (1, Some(Sequence(2))));
    }
    assert_eq!(node.offer("keys", &act(&request)), Outcome::Done { decision: Some(at(1)), entry: at(2) });
}

#[test]
fn a_decision_is_not_redeemed_for_one_suspended_since_and_not_if_nobody_made_it() {
    let mut node = Node::new(vec![always()]);
    let request = sign_request(&mut node, BOB);
    let decision = node.done("keys", &ask(&request)).decision.unwrap().sequence;
    let redeem = |decision| Item::Redeem { decision, entry: usage(1, &request, b"m") };
    let unknown = Sequence(decision.0 + 1);
    assert_eq!(node.refusal("keys", &redeem(unknown)), Refusal::DecisionNotFound(unknown));
    let suspension = status(BOB, IdentityStatus::Active, IdentityStatus::Suspended);
    node.engine.apply_entry(at(9), &suspension, b"");
    assert_eq!(node.refusal("keys", &redeem(decision)).reason(), "Unauthorized");
}

#[test]
fn each_requestor_has_refusals_of_its_own_and_strangers_share_theirs() {
    let mut node = Node::new(vec![]);
    use_up_denials(&mut node, BOB);
    let busy = |node: &mut Node, who: u8| {
        let request = sign_request(node, who);
        matches!(node.offer("keys", &ask(&request)), Outcome::Busy { .. })
    };
    assert!(busy(&mut node, BOB) && !busy(&mut node, ALICE));
    for stranger in 0..DENIALS_SINGLE_PER_S {
        assert!(!busy(&mut node, 150 + stranger as u8), "{stranger}");
    }
    assert!(busy(&mut node, 149) && !busy(&mut node, ADMIN));
}

#[test]
fn one_who_is_refused_too_often_is_told_when_the_second_is_over() {
    let mut node = Node::new(vec![]);
    use_up_denials(&mut node, BOB);
    let request = sign_request(&mut node, BOB);
    for (after_ns, retry_after_ms) in [(1, 1000), (1_000_000, 999), (250_000_001, 750), (999_999_999, 1)] {
        node.now = NOW.saturating_add(after_ns);
        assert_eq!(node.offer("keys", &ask(&request)), Outcome::Busy { retry_after_ms });
    }
}

#[test]
fn counted_refusals_wait_for_the_next_refusal_if_the_request_would_be_allowed_by_now() {
    let mut node = Node::new(vec![]);
    use_up_denials(&mut node, BOB);
    for _ in 0..2 {
        let request = sign_request(&mut node, BOB);
        assert!(matches!(node.offer("keys", &ask(&request)), Outcome::Busy { .. }));
    }
    node.now = NOW.saturating_add(SECOND);
    let add = |node: &mut Node, id: &str, priority, effect| {
        let rule = rule(id, priority, effect, PolicyCondition::Always);
        let payload = added(rule);
        node.engine.apply_entry(at(node.log.len() as u64), &payload, b"");
        node.log.push((payload.entry_type(), vec![]));
    };
    add(&mut node, "for", 1, PolicyEffect::Allow);
    assert!(node.engine.tick(node.now).is_empty());
    add(&mut node, "against", 2, PolicyEffect::Deny);
    let request = sign_request(&mut node, BOB);
    node.done("keys", &ask(&request));
    assert!(last_reason(&node).ends_with("[and refused as often: 2]"), "{}", last_reason(&node));
}

#[test]
fn an_engine_that_allows_everything_says_so_in_what_it_plans() {
    let mut node = Node::new(vec![]);
    node.engine.allow_everything();
    let request = sign_request(&mut node, BOB);
    let unit = node.plan("keys", &act(&request));
    let body: chain::payload::policy::DecisionBody = cbor::decode(unit.decision.as_ref().unwrap()).unwrap();
    assert_eq!((body.effect, body.reason), (PolicyEffect::Allow, None));
    assert!(unit.allows && unit.entry.is_some());
}

#[test]
fn a_request_has_so_many_bytes_and_no_more() {
    let mut node = Node::new(vec![always()]);
    let refused = |node: &mut Node, bytes: usize| {
        node.refusal("keys", &Item::Evaluate { request: vec![0; bytes] }).to_string()
    };
    assert!(!refused(&mut node, REQUEST_BYTES_MAX).contains("at most"));
    assert!(refused(&mut node, REQUEST_BYTES_MAX + 1).contains("at most"));
}

#[test]
fn a_change_of_rules_in_flight_is_settled_before_anything_else_is_decided() {
    let mut node = Node::new(vec![always()]);
    let add = add_rule(&mut node, ADMIN, rule("new", 1, PolicyEffect::Deny, PolicyCondition::Always));
    let unit = node.plan("policy", &add);
    assert_eq!(node.offer("keys", &receipt(1)), Outcome::Wait);
    assert_eq!(node.engine.abandon(), [unit.id]);
    assert!(matches!(node.offer("keys", &receipt(1)), Outcome::Planned(_)));
}
