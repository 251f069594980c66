//! Why a request came out as it did, and the smallest change that would turn it; for the operator, never for the caller.

use base::{AxiomTime, RuleId};
use chain::payload::policy::{
    ActionMatcher, IdentityMatcher, PolicyCondition, PolicyEffect, PolicyRequest, PolicyRule, ResourceMatcher,
};

use super::{Layer, PolicyState, decide, validate};

/// Priority of a suggested rule, if that is enough.
const PRIORITY_USUAL: u32 = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub effect: PolicyEffect,
    pub layer: Layer,
    pub rule: RuleId,
    pub reason: String,
    /// Who wanted what on what.
    pub request: String,
    /// A rule that would allow exactly this; None if it was allowed, or if no rule can.
    pub smallest_change: Option<PolicyRule>,
}

impl Layer {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::Request => "request",
            Self::Rule => "rule",
            Self::Evaluation => "evaluation",
            Self::Default => "default",
        }
    }
}

#[must_use]
pub fn explain(state: &PolicyState, request: &PolicyRequest, now: AxiomTime) -> Explanation {
    let verdict = decide(state, request, now);
    let who = state.identities().get(&request.requestor);
    let name = who.map_or_else(|| request.requestor.to_string(), |who| who.name.clone());
    let rule = verdict.deciding.map_or_else(RuleId::default_deny, |stored| stored.rule.id.clone());
    let priority = verdict.deciding.map(|stored| stored.rule.priority);
    Explanation {
        effect: verdict.effect,
        layer: verdict.layer,
        reason: verdict.reason().unwrap_or_else(|| format!("rule {rule} allows it")),
        rule,
        request: format!(
            "{name} wanted {:?} on {:?} {} through {}",
            request.action.kind(),
            request.resource.resource_type,
            request.resource.id,
            request.context.service
        ),
        smallest_change: match (verdict.effect, verdict.layer) {
            (PolicyEffect::Deny, Layer::Rule | Layer::Evaluation | Layer::Default) => {
                smallest_change(state, request, now, priority)
            }
            _ => None,
        },
    }
}

/// Tried before it is suggested: it must allow this request.
fn smallest_change(
    state: &PolicyState,
    request: &PolicyRequest,
    now: AxiomTime,
    denied_by: Option<u32>,
) -> Option<PolicyRule> {
    let priority = denied_by.map_or(Some(0), |priority| priority.checked_add(1))?.max(PRIORITY_USUAL);
    let kind = request.action.kind();
    let digest = request.hash().to_hex();
    let rule = PolicyRule {
        id: RuleId::new(format!("allow-{}", digest.get(..12)?)).ok()?,
        name: format!("{kind:?}, once refused"),
        description: "Suggested by `why`: allows this requestor this action on this resource.".to_owned(),
        priority,
        condition: PolicyCondition::And(vec![
            PolicyCondition::Identity(IdentityMatcher::Exact(request.requestor)),
            PolicyCondition::Action(ActionMatcher::Kind(kind)),
            PolicyCondition::Resource(ResourceMatcher::Exact(request.resource.clone())),
        ]),
        effect: PolicyEffect::Allow,
        restrictions: Vec::new(),
    };
    validate(&rule).ok()?;
    let tried = state.with_rule(rule.clone());
    (decide(&tried, request, now).effect == PolicyEffect::Allow).then_some(rule)
}
