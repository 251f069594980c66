//! A decision on a capability, an image or a rule is for that one alone.

use base::{CapabilityId, Hash, IdentityId};
use chain::payload::{
    Payload,
    capability::{CapabilityGrant, CapabilityRevoke, ObjectType, Permissions, Resource},
    policy::{
        ActionMatcher, PolicyAction, PolicyCondition, PolicyEffect, PolicyRuleAdded, PolicyRuleRemoved,
        ResourceMatcher,
    },
};

use super::support::{
    ADMIN, ALICE, BOB, NOW, ROOT, added, allow, at, envelope, id, request, rule, rule_id, state,
};
use crate::core::{Layer, authority::fits_decision, decide, evaluate};

const ONE: CapabilityId = CapabilityId([1; 16]);
const OTHER: CapabilityId = CapabilityId([2; 16]);

fn grant(capability: CapabilityId, parent: Option<CapabilityId>, to: u8) -> Payload {
    Payload::CapabilityGrant(envelope(CapabilityGrant {
        capability_id: capability,
        grantor: id(ADMIN),
        grantee: id(to),
        resource: Resource { object_type: ObjectType::File, object_id: "/a".to_owned() },
        permissions: Permissions { read: true, ..Permissions::default() },
        restrictions: None,
        parent,
    }))
}

fn revoke(capability: CapabilityId, by: IdentityId) -> Payload {
    Payload::CapabilityRevoke(envelope(CapabilityRevoke { capability, by, reason: String::new() }))
}

/// covers: POL-16
#[test]
fn a_decision_on_a_capability_is_for_it_and_its_receiver() {
    let state = state(vec![]);
    let fits = |action: &PolicyAction, payload: &Payload| fits_decision(&state, action, id(ADMIN), payload);
    let delegate = PolicyAction::DelegateCapability { capability: ONE, to: id(ALICE) };
    // The right passed on is the one that was decided on, or is derived from it.
    assert!(fits(&delegate, &grant(ONE, None, ALICE)) && fits(&delegate, &grant(OTHER, Some(ONE), ALICE)));
    for wrong in [
        grant(ONE, None, BOB),
        grant(OTHER, None, ALICE),
        grant(OTHER, Some(OTHER), ALICE),
        revoke(ONE, id(ADMIN)),
    ] {
        assert!(!fits(&delegate, &wrong), "{wrong:?}");
    }
    let withdraw = PolicyAction::RevokeCapability { capability: ONE };
    assert!(fits(&withdraw, &revoke(ONE, id(ADMIN))));
    for wrong in [revoke(OTHER, id(ADMIN)), revoke(ONE, id(BOB)), grant(ONE, None, ALICE)] {
        assert!(!fits(&withdraw, &wrong), "{wrong:?}");
    }
    for action in [delegate, withdraw] {
        let kind = action.kind();
        let request = request(BOB, action);
        let with = |matcher| {
            let rules = vec![allow(PolicyCondition::Action(ActionMatcher::Kind(matcher)))];
            evaluate(&super::support::state(rules), &request, NOW).unwrap().allows()
        };
        assert!(with(kind), "{kind:?}");
        let other = PolicyAction::UpgradeSystem { image: Hash::ZERO }.kind();
        assert!(!with(other), "{kind:?}");
    }
}

/// covers: POL-17
#[test]
fn a_decision_on_the_system_is_for_one_image_or_one_rule() {
    let image = |text: &str| PolicyAction::UpgradeSystem { image: Hash::of(text.as_bytes()) };
    let this = request(BOB, image("this"));
    let only_this = PolicyCondition::Resource(ResourceMatcher::Exact(this.resource.clone()));
    let upgrades = state(vec![allow(only_this)]);
    assert!(evaluate(&upgrades, &this, NOW).unwrap().allows());
    assert!(!evaluate(&upgrades, &request(BOB, image("that")), NOW).unwrap().allows());
    let mut disguised = request(BOB, image("that"));
    disguised.resource = this.resource;
    assert_eq!(decide(&upgrades, &disguised, NOW).layer, Layer::Request, "the resource is not the image");

    let wanted = rule("new", 5, PolicyEffect::Allow, PolicyCondition::Never);
    let modify = PolicyAction::ModifyPolicy { rule: Box::new(wanted.clone()) };
    let mut policy = state(vec![]);
    let add = |rule, by: u8| Payload::PolicyRuleAdded(envelope(PolicyRuleAdded { rule, created_by: id(by) }));
    let remove = |by: u8| {
        let body = PolicyRuleRemoved { rule: rule_id("new"), removed_by: id(by) };
        Payload::PolicyRuleRemoved(envelope(body))
    };
    assert!(fits_decision(&policy, &modify, id(ROOT), &add(wanted.clone(), ROOT)));
    let wider = rule("new", 5, PolicyEffect::Allow, PolicyCondition::Always);
    assert!(!fits_decision(&policy, &modify, id(ROOT), &add(wider, ROOT)));
    assert!(!fits_decision(&policy, &modify, id(ROOT), &add(wanted.clone(), BOB)));
    assert!(!fits_decision(&policy, &modify, id(ROOT), &remove(ROOT)), "there is no such rule yet");
    policy.apply(at(1), &added(wanted));
    assert!(fits_decision(&policy, &modify, id(ROOT), &remove(ROOT)));
    assert!(!fits_decision(&policy, &modify, id(ROOT), &remove(BOB)));
}
