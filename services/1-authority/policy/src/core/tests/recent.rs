//! Allowed decisions are remembered while they can be used, and no longer.

use std::sync::Arc;

use base::{AxiomTime, Hash, Sequence, limits::DECISION_VALIDITY_NS};
use chain::payload::policy::{PolicyCondition, PolicyRequest};

use super::support::{ALICE, BOB, NOW, allow, at, read, state};
use crate::core::{PolicyState, Used, evaluate};

fn decide(state: &mut PolicyState, sequence: u64, request: &PolicyRequest, after_ns: u64) -> Hash {
    let body = evaluate(state, request, AxiomTime(NOW.0 + after_ns)).unwrap();
    state.fold_decision(Some(at(sequence)), &Arc::new(body));
    request.hash()
}

#[test]
fn a_decision_is_forgotten_when_its_validity_is_over() {
    let mut state = state(vec![allow(PolicyCondition::Always)]);
    let first = decide(&mut state, 1, &read(BOB, "/first"), 0);
    decide(&mut state, 2, &read(BOB, "/second"), DECISION_VALIDITY_NS - 1);
    assert_eq!(state.recent().request_of(Sequence(1)), Some(first));
    assert!(state.recent().get(&first).is_some());
    let third = decide(&mut state, 3, &read(BOB, "/third"), DECISION_VALIDITY_NS);
    assert_eq!(state.recent().request_of(Sequence(1)), None);
    assert!(state.recent().get(&first).is_none() && state.recent().get(&third).is_some());
    assert!(!state.recent().is_full());
}

#[test]
fn a_later_decision_on_the_same_request_keeps_it_and_its_use() {
    let mut state = state(vec![allow(PolicyCondition::Always)]);
    let request = read(BOB, "/again");
    let hash = decide(&mut state, 1, &request, 0);
    let used = Used { payload: Hash::of(b"payload"), entry: Some(at(2)) };
    state.use_up(&hash, used.clone());
    decide(&mut state, 3, &request, DECISION_VALIDITY_NS - 1);
    decide(&mut state, 4, &read(ALICE, "/other"), DECISION_VALIDITY_NS);
    let known = state.recent().get(&hash).unwrap();
    assert_eq!((known.used.as_ref(), known.decision), (Some(&used), Some(at(3))));
    assert!(known.body.is_none(), "what was used is not kept to be used again");
    assert_eq!(state.recent().request_of(Sequence(1)), None);
    assert_eq!(state.recent().request_of(Sequence(3)), Some(hash));
}

#[test]
fn a_refusal_is_not_remembered() {
    let mut state = state(vec![]);
    let hash = decide(&mut state, 1, &read(BOB, "/a"), 0);
    assert!(state.recent().get(&hash).is_none());
    assert_eq!(state.recent().request_of(Sequence(1)), None);
}
