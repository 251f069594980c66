//! The decision itself: a pure function of state, request and time.

use base::{AxiomTime, Hash, RuleId};
use chain::payload::{
    identity::IdentityStatus,
    network::NetworkGrant,
    policy::{ActionKind, DecisionBody, PolicyCondition, PolicyEffect, PolicyRequest, Restriction},
};
use ed25519_dalek::VerifyingKey;

use super::{
    PolicyError,
    condition::Facts,
    identities::Principal,
    limits::MATCHED_RULES_MAX,
    request::fault_of,
    rule_set::{Match, StoredRule},
    state::PolicyState,
    verify::request_of,
};

/// Which part of the engine settled the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The requestor is unknown, suspended or revoked.
    Authentication,
    /// The request contradicts itself or passes a limit.
    Request,
    /// A rule matched.
    Rule,
    /// A rule could not be evaluated.
    Evaluation,
    /// No rule matched.
    Default,
}

/// What was decided, without a copy of anything.
#[derive(Clone, Debug)]
pub struct Verdict<'a> {
    pub layer: Layer,
    pub effect: PolicyEffect,
    /// None for `DEFAULT_DENY`.
    pub deciding: Option<&'a StoredRule>,
    pub matched: Vec<Match<'a>>,
    /// Where no rule gives the reason.
    other_reason: Option<String>,
}

impl Verdict<'_> {
    fn denied(layer: Layer, reason: Option<String>) -> Self {
        Self { layer, effect: PolicyEffect::Deny, deciding: None, matched: Vec::new(), other_reason: reason }
    }

    /// Why not, for people; made when it is asked for. None if it is allowed.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        if self.effect != PolicyEffect::Deny {
            return None;
        }
        let of_rule = self.deciding.map(|stored| {
            let rule = &stored.rule;
            match self.matched.first().and_then(|first| first.fault) {
                Some(fault) => format!("rule {} cannot be evaluated: {fault}", rule.id),
                None => format!("rule {} denies: {}", rule.id, rule.name),
            }
        });
        Some(of_rule.or_else(|| self.other_reason.clone()).unwrap_or_else(|| "no rule matches".to_owned()))
    }
}

/// Decides without recording and without the request's signature.
#[must_use]
pub fn decide<'a>(state: &'a PolicyState, request: &PolicyRequest, now: AxiomTime) -> Verdict<'a> {
    let requestor = match authenticate(state, request) {
        Ok(requestor) => requestor,
        Err(reason) => return Verdict::denied(Layer::Authentication, Some(reason)),
    };
    if let Some(reason) = fault_of(request) {
        return Verdict::denied(Layer::Request, Some(reason));
    }
    let facts =
        Facts { request, kind: request.action.kind(), requestor, now, rates: state.rates(), own: None };
    let mut matched = Vec::with_capacity(8);
    state.rules().matching(&facts, &mut matched);
    if matched.len() > MATCHED_RULES_MAX {
        let reason = format!("{} rules match, at most {MATCHED_RULES_MAX} can be recorded", matched.len());
        return Verdict::denied(Layer::Evaluation, Some(reason));
    }
    settle(matched)
}

/// The first match decides (POL-40).
fn settle(matched: Vec<Match<'_>>) -> Verdict<'_> {
    let Some(first) = matched.first().copied() else {
        return Verdict::denied(Layer::Default, None);
    };
    let (layer, effect) = match first.fault {
        Some(_) => (Layer::Evaluation, PolicyEffect::Deny),
        None => (Layer::Rule, first.stored.rule.effect),
    };
    Verdict { layer, effect, deciding: Some(first.stored), matched, other_reason: None }
}

pub(super) fn authenticate<'a>(
    state: &'a PolicyState,
    request: &PolicyRequest,
) -> Result<&'a Principal, String> {
    let requestor = state
        .identities()
        .get(&request.requestor)
        .ok_or_else(|| format!("the requestor {} is not known", request.requestor))?;
    match requestor.status {
        IdentityStatus::Active => Ok(requestor),
        IdentityStatus::Suspended => Err(format!("the requestor {} is suspended", requestor.name)),
        IdentityStatus::Revoked => Err(format!("the requestor {} is revoked", requestor.name)),
    }
}

/// The decision as it is recorded. An error is not a decision: a wrong signature is not evaluated (POL-10).
pub fn evaluate(
    state: &PolicyState,
    request: &PolicyRequest,
    now: AxiomTime,
) -> Result<DecisionBody, PolicyError> {
    evaluate_hashed(state, request, request.hash(), now)
}

/// The same for a caller that knows the request's hash already.
pub(super) fn evaluate_hashed(
    state: &PolicyState,
    request: &PolicyRequest,
    request_hash: Hash,
    now: AxiomTime,
) -> Result<DecisionBody, PolicyError> {
    verify_signature(state, request)?;
    Ok(body_of(state, request, request_hash, now))
}

/// A signature of an unknown requestor cannot be checked; that request is denied for its requestor.
fn verify_signature(state: &PolicyState, request: &PolicyRequest) -> Result<(), PolicyError> {
    let (Some(signature), Some(requestor)) = (request.signature, state.identities().get(&request.requestor))
    else {
        return Ok(());
    };
    let key = VerifyingKey::from_bytes(&requestor.public_key.0).map_err(|_| PolicyError::InvalidSignature)?;
    key.verify_strict(&request.signed_bytes(), &ed25519_dalek::Signature::from_bytes(&signature.0))
        .map_err(|_| PolicyError::InvalidSignature)
}

pub(super) fn body_of(
    state: &PolicyState,
    request: &PolicyRequest,
    request_hash: Hash,
    now: AxiomTime,
) -> DecisionBody {
    let verdict = decide(state, request, now);
    DecisionBody {
        request_hash,
        requestor: request.requestor,
        action: request.action.clone(),
        resource: request.resource.clone(),
        context: request.context.clone(),
        nonce: request.nonce,
        policy_state_hash: state.state_hash(),
        matched_rules: verdict.matched.iter().map(|found| found.stored.rule.id.clone()).collect(),
        effect: verdict.effect,
        deciding_rule: verdict.deciding.map_or_else(RuleId::default_deny, |stored| stored.rule.id.clone()),
        conditions: conditions(&verdict),
        timestamp: now,
        reason: verdict.reason(),
    }
}

/// Which restriction of a decision does not hold now, or cannot be told to hold: an act on it is refused. `made` is the
/// time of a decision that is recorded already. None if the act may go ahead.
#[must_use]
pub fn unmet(
    state: &PolicyState,
    body: &DecisionBody,
    now: AxiomTime,
    made: Option<AxiomTime>,
) -> Option<String> {
    if body.effect != PolicyEffect::AllowWithConditions {
        return None;
    }
    let rule = &body.deciding_rule;
    let Some(stored) = state.rules().get(rule) else {
        return Some(format!("rule {rule} is not in force any more"));
    };
    let restrictions = &stored.rule.restrictions;
    if stored.structure.is_err() || !restrictions.iter().map(|r| &r.condition).eq(&body.conditions) {
        return Some(format!("rule {rule} has other restrictions by now"));
    }
    let Some(requestor) = state.identities().get(&body.requestor) else {
        return Some(format!("the requestor {} is not known", body.requestor));
    };
    let request = request_of(body);
    let kind = request.action.kind();
    let facts = Facts { request: &request, kind, requestor, now, rates: state.rates(), own: made };
    restrictions.iter().find_map(|restriction| {
        let why = match facts.holds(&stored.rule, &restriction.condition) {
            _ if !limits_are_held(kind, restriction) => "has limits that nothing enforces".to_owned(),
            Ok(true) => return None,
            Ok(false) => "is not met".to_owned(),
            Err(fault) => format!("cannot be judged: {fault}"),
        };
        Some(format!("rule {rule} allows this under conditions, and {:?} {why}", restriction.name))
    })
}

/// Of a connection `network` holds the limits that it knows; nobody else counts one by name.
fn limits_are_held(kind: ActionKind, restriction: &Restriction) -> bool {
    let mut names = restriction.limits.keys();
    match kind {
        ActionKind::Connect | ActionKind::Listen => {
            names.all(|name| NetworkGrant::LIMITS.contains(&name.as_str()))
        }
        _ => names.next().is_none(),
    }
}

/// What the caller must still satisfy (POL-22).
fn conditions(verdict: &Verdict<'_>) -> Vec<PolicyCondition> {
    match (verdict.effect, verdict.deciding) {
        (PolicyEffect::AllowWithConditions, Some(stored)) => {
            stored.rule.restrictions.iter().map(|restriction| restriction.condition.clone()).collect()
        }
        _ => Vec::new(),
    }
}
