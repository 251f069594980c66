//! Each action can be allowed and denied, and what is wrong with a request or its requestor denies before any rule.

use base::{Hash, KeyPath, Signature};
use chain::payload::{
    identity::IdentityStatus,
    policy::{
        ActionMatcher, PolicyAction, PolicyCondition, PolicyEffect, PolicyRequest, ResourceMatcher,
        ResourceRef, ResourceType,
    },
};
use ed25519_dalek::Signer;

use super::support::{
    ADMIN, BOB, NOW, ROOT, all_actions, allow, at, key_of, read, request, rule, state, status,
};
use crate::core::{
    Layer, PolicyError, decide, evaluate,
    limits::{METADATA_BYTES_MAX, METADATA_PAIRS_MAX, RESOURCE_BYTES_MAX},
};

/// covers: POL-18, POL-32, POL-39, POL-41, POL-55
#[test]
fn every_action_is_denied_without_a_rule_and_allowed_by_one_for_its_kind() {
    let actions = all_actions();
    assert_eq!(actions.len(), 30);
    for action in actions {
        let kind = action.kind();
        let request = request(BOB, action);
        let nothing = evaluate(&state(vec![]), &request, NOW).unwrap();
        assert_eq!(
            (nothing.effect, nothing.deciding_rule.as_str()),
            (PolicyEffect::Deny, "DEFAULT_DENY"),
            "{kind:?}"
        );
        assert!(nothing.reason.is_some() && nothing.matched_rules.is_empty());
        let only = |matcher| state(vec![allow(PolicyCondition::Action(matcher))]);
        let allowed = evaluate(&only(ActionMatcher::Kind(kind)), &request, NOW).unwrap();
        assert_eq!((allowed.effect, allowed.reason), (PolicyEffect::Allow, None), "{kind:?}");
        let others = all_actions().into_iter().map(|a| a.kind()).filter(|k| *k != kind).collect();
        let denied = evaluate(&only(ActionMatcher::AnyOf(others)), &request, NOW).unwrap();
        assert_eq!(denied.effect, PolicyEffect::Deny, "{kind:?}");
        let against =
            rule("against", 200, PolicyEffect::Deny, PolicyCondition::Action(ActionMatcher::Kind(kind)));
        let both = state(vec![allow(PolicyCondition::Always), against]);
        let denied = evaluate(&both, &request, NOW).unwrap();
        assert_eq!(denied.deciding_rule.as_str(), "against", "{kind:?}");
        assert_eq!(denied.matched_rules.len(), 2, "{kind:?}");
    }
}

/// covers: POL-11, POL-12, POL-13, POL-14, POL-15
#[test]
fn a_resource_that_is_not_the_actions_own_denies() {
    let state = state(vec![allow(PolicyCondition::Always)]);
    for action in all_actions() {
        let kind = action.kind();
        let names_none =
            matches!(action, PolicyAction::DelegateCapability { .. } | PolicyAction::RevokeCapability { .. });
        let good = request(BOB, action);
        for resource in [
            ResourceRef { id: format!("{}x", good.resource.id), ..good.resource.clone() },
            ResourceRef { resource_type: other_type(good.resource.resource_type), ..good.resource.clone() },
        ] {
            let verdict_of = |request: &PolicyRequest| decide(&state, request, NOW).layer;
            let wrong = PolicyRequest { resource, ..good.clone() };
            let expected = if names_none { Layer::Rule } else { Layer::Request };
            assert_eq!(verdict_of(&wrong), expected, "{kind:?} {:?}", wrong.resource);
        }
    }
}

/// covers: POL-17
#[test]
fn an_upgrade_is_decided_for_its_image_and_a_change_of_policy_for_its_rule() {
    let only = |wanted: &PolicyRequest| {
        state(vec![allow(PolicyCondition::Resource(ResourceMatcher::Exact(wanted.resource.clone())))])
    };
    let image = |text: &str| request(BOB, PolicyAction::UpgradeSystem { image: Hash::of(text.as_bytes()) });
    let (this, mut that) = (image("this"), image("that"));
    assert!(evaluate(&only(&this), &this, NOW).unwrap().allows());
    assert!(!evaluate(&only(&this), &that, NOW).unwrap().allows());
    that.resource = this.resource.clone();
    assert_eq!(decide(&only(&this), &that, NOW).layer, Layer::Request, "that is not the image");
    let change = |id: &str, priority| {
        let new = rule(id, priority, PolicyEffect::Allow, PolicyCondition::Always);
        request(BOB, PolicyAction::ModifyPolicy { rule: Box::new(new) })
    };
    let this = change("this", 5);
    assert!(evaluate(&only(&this), &this, NOW).unwrap().allows());
    assert!(!evaluate(&only(&this), &change("that", 5), NOW).unwrap().allows());
    assert_ne!(this.hash(), change("this", 6).hash(), "a decision is for the whole rule");
}

fn other_type(resource_type: ResourceType) -> ResourceType {
    if resource_type == ResourceType::Service { ResourceType::Process } else { ResourceType::Service }
}

#[test]
fn paths_that_lead_elsewhere_and_values_beyond_a_limit_deny() {
    let state = state(vec![allow(PolicyCondition::Always)]);
    let layer = |request: &PolicyRequest| decide(&state, request, NOW).layer;
    for bad in ["/a/../b", "/a/", "//a", "a", "/a/./b", "/a\0"] {
        assert_eq!(layer(&read(BOB, bad)), Layer::Request, "{bad:?}");
    }
    let longest = format!("/{}", "x".repeat(RESOURCE_BYTES_MAX - 1));
    assert_eq!(layer(&read(BOB, &longest)), Layer::Rule);
    assert_eq!(layer(&read(BOB, &format!("{longest}x"))), Layer::Request);
    let mut full = read(BOB, "/a");
    for n in 0..METADATA_PAIRS_MAX {
        full.context.metadata.insert(format!("{n:0METADATA_BYTES_MAX$}"), "v".repeat(METADATA_BYTES_MAX));
    }
    assert_eq!(layer(&full), Layer::Rule);
    let mut many = full.clone();
    many.context.metadata.insert("one more".to_owned(), String::new());
    assert_eq!(layer(&many), Layer::Request);
    let too_long = "v".repeat(METADATA_BYTES_MAX + 1);
    for (key, value) in [("k".to_owned(), too_long.clone()), (too_long, "v".to_owned())] {
        let mut long = read(BOB, "/a");
        long.context.metadata.insert(key, value);
        assert_eq!(layer(&long), Layer::Request);
    }
}

/// covers: POL-54
#[test]
fn an_unknown_suspended_or_revoked_requestor_is_denied_whatever_the_rules_say() {
    let mut state = state(vec![allow(PolicyCondition::Always)]);
    let deny = |state: &_, who: u8| {
        let body = evaluate(state, &read(who, "/a"), NOW).unwrap();
        assert_eq!(body.deciding_rule.as_str() == "DEFAULT_DENY", !body.allows());
        body.reason
    };
    assert_eq!(deny(&state, BOB), None);
    assert!(deny(&state, 99).unwrap().contains("not known"));
    state.apply(at(1), &status(BOB, IdentityStatus::Active, IdentityStatus::Suspended));
    assert!(deny(&state, BOB).unwrap().contains("suspended"));
    state.apply(at(2), &status(BOB, IdentityStatus::Suspended, IdentityStatus::Active));
    assert_eq!(deny(&state, BOB), None);
    state.apply(at(3), &status(BOB, IdentityStatus::Active, IdentityStatus::Revoked));
    assert!(deny(&state, BOB).unwrap().contains("revoked"));
    state.apply(at(4), &status(BOB, IdentityStatus::Revoked, IdentityStatus::Active));
    assert!(deny(&state, BOB).unwrap().contains("revoked"));
}

/// covers: POL-09, POL-10
#[test]
fn a_signature_is_verified_if_it_is_there() {
    let state = state(vec![allow(PolicyCondition::Always)]);
    let plain = read(BOB, "/a");
    let sign = |n: u8| Signature(key_of(n).sign(&plain.signed_bytes()).to_bytes());
    let with =
        |signature| evaluate(&state, &PolicyRequest { signature: Some(signature), ..plain.clone() }, NOW);
    assert!(with(sign(BOB)).unwrap().allows());
    assert_eq!(with(sign(ADMIN)), Err(PolicyError::InvalidSignature));
    let mut broken = sign(BOB);
    broken.0[63] ^= 1;
    assert_eq!(with(broken), Err(PolicyError::InvalidSignature));
    let other = PolicyRequest { signature: Some(sign(BOB)), ..read(BOB, "/b") };
    assert_eq!(evaluate(&state, &other, NOW), Err(PolicyError::InvalidSignature));
}

/// covers: POL-19, POL-24
#[test]
fn a_decision_says_what_was_asked_and_when() {
    let state = state(vec![allow(PolicyCondition::Always)]);
    let key_path = KeyPath::parse("/orbital/users/bob").unwrap();
    let request = request(ROOT, PolicyAction::Encrypt { key_path });
    let body = evaluate(&state, &request, NOW).unwrap();
    assert_eq!((body.request_hash, body.timestamp), (request.hash(), NOW));
    assert_eq!(
        (body.requestor, &body.action, &body.resource),
        (request.requestor, &request.action, &request.resource)
    );
    assert_eq!((body.nonce, body.policy_state_hash), (request.nonce, state.state_hash()));
}
