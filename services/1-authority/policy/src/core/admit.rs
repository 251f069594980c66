//! What is checked before the engine plans a unit: who speaks, for what, and whether the entry says what was decided.

use base::{Hash, IdentityId, RuleId, Sequence, cbor, limits::DECISION_VALIDITY_NS};
use chain::payload::{
    Payload,
    policy::{PolicyAction, PolicyRequest},
};
use thiserror::Error;

use super::{
    PolicyError, PolicyState,
    authority::{fits_decision, fits_no_decision, identity_of, may_act, may_ask, may_record},
    engine::Entry,
    limits::{REQUEST_BYTES_MAX, RULES_MAX},
    validate::validate,
};

/// Why an item got no unit. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("the request cannot be read: {0}")]
    InvalidRequest(String),
    #[error("the payload cannot be used: {0}")]
    InvalidPayload(String),
    #[error("the entry is not what the decision allows")]
    PolicyMismatch,
    #[error("it was made for what another rule allows than {0}, which decides it")]
    RuleDiffers(RuleId),
    #[error("{0} is no allowed decision of the last {seconds} s", seconds = DECISION_VALIDITY_NS / 1_000_000_000)]
    DecisionNotFound(Sequence),
    #[error("the decision is older than {seconds} s", seconds = DECISION_VALIDITY_NS / 1_000_000_000)]
    DecisionExpired,
    #[error("the decision was used for another entry")]
    DecisionUsed,
}

impl Refusal {
    /// The name that the contract gives it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Policy(error) => match error {
                PolicyError::Unauthenticated(_) => "Unauthenticated",
                PolicyError::InvalidSignature => "InvalidSignature",
                PolicyError::Unauthorized(_) => "Unauthorized",
                PolicyError::RuleNotFound(_) => "RuleNotFound",
                PolicyError::DuplicateRule(_) => "DuplicateRule",
                PolicyError::InvalidRule { .. } => "InvalidRule",
                PolicyError::AxiomUnavailable => "AxiomUnavailable",
            },
            Self::InvalidRequest(_) => "InvalidRequest",
            Self::InvalidPayload(_) => "InvalidPayload",
            Self::PolicyMismatch => "PolicyMismatch",
            Self::RuleDiffers(_) => "RuleDiffers",
            Self::DecisionNotFound(_) => "DecisionNotFound",
            Self::DecisionExpired => "PolicyDecisionExpired",
            Self::DecisionUsed => "DecisionUsed",
        }
    }
}

fn unauthorized(text: String) -> Refusal {
    Refusal::Policy(PolicyError::Unauthorized(text))
}

/// Reads a request and checks that this channel may ask it. The engine's own channel asks for others.
pub(super) fn request(channel: &str, bytes: &[u8]) -> Result<PolicyRequest, Refusal> {
    if bytes.len() > REQUEST_BYTES_MAX {
        let text = format!("it has {} bytes, at most {REQUEST_BYTES_MAX} are allowed", bytes.len());
        return Err(Refusal::InvalidRequest(text));
    }
    let request: PolicyRequest =
        cbor::decode(bytes).map_err(|error| Refusal::InvalidRequest(error.to_string()))?;
    if channel != "policy" && request.context.service != channel {
        let text = format!("{channel} asks in the name of the service {:?}", request.context.service);
        return Err(unauthorized(text));
    }
    let kind = request.action.kind();
    match may_ask(channel, kind) {
        true => Ok(request),
        false => Err(unauthorized(format!("{channel} may not ask for {kind:?}"))),
    }
}

/// Reads a payload and checks that this channel's service wrote it, with the authorization that it must have.
fn payload(
    state: &PolicyState,
    channel: &str,
    entry: &Entry,
    authorization: Option<Hash>,
) -> Result<Payload, Refusal> {
    let payload = Payload::decode(entry.entry_type, &entry.payload)
        .map_err(|error| Refusal::InvalidPayload(error.to_string()))?;
    let head = payload.head();
    let own =
        identity_of(state, channel).ok_or_else(|| unauthorized(format!("{channel} has no identity")))?;
    if head.submitter != own.id {
        return Err(unauthorized(format!("{channel} submits in the name of {}", head.submitter)));
    }
    match head.authorization == authorization {
        true => Ok(payload),
        false => Err(Refusal::PolicyMismatch),
    }
}

pub(super) fn act(
    state: &PolicyState,
    channel: &str,
    entry: &Entry,
    request: Hash,
    action: &PolicyAction,
    by: IdentityId,
) -> Result<Payload, Refusal> {
    if !may_act(channel, entry.entry_type) {
        return Err(unauthorized(format!("{channel} may not append entries of type {}", entry.entry_type)));
    }
    let payload = payload(state, channel, entry, Some(request))?;
    if let (PolicyAction::ModifyPolicy { .. }, Payload::PolicyRuleRemoved(removal)) = (action, &payload) {
        found(state, &removal.body.rule)?;
    }
    match fits_decision(state, action, by, &payload) {
        true => Ok(payload),
        false => Err(Refusal::PolicyMismatch),
    }
}

pub(super) fn record(state: &PolicyState, channel: &str, entry: &Entry) -> Result<Payload, Refusal> {
    if !may_record(channel, entry.entry_type) {
        return Err(unauthorized(format!("{channel} may not record entries of type {}", entry.entry_type)));
    }
    let payload = payload(state, channel, entry, None)?;
    match fits_no_decision(&payload) {
        true => Ok(payload),
        false => Err(unauthorized("this record needs a decision".to_owned())),
    }
}

/// What a change of rules needs beyond a decision (POL-28, POL-56).
pub(super) fn rule_change(state: &PolicyState, by: &IdentityId, payload: &Payload) -> Result<(), Refusal> {
    let is_change = matches!(payload, Payload::PolicyRuleAdded(_) | Payload::PolicyRuleRemoved(_));
    if is_change && !state.is_system_class(by) {
        return Err(unauthorized("only a System identity or the admin changes rules".to_owned()));
    }
    let Payload::PolicyRuleAdded(addition) = payload else { return Ok(()) };
    let rule = &addition.body.rule;
    validate(rule)?;
    if state.rules().get(&rule.id).is_some() {
        return Err(PolicyError::DuplicateRule(rule.id.clone()).into());
    }
    if state.rules().len() >= RULES_MAX {
        let text = format!("{RULES_MAX} rules are in force, the most that can be");
        return Err(
            PolicyError::InvalidRule { rule: rule.id.to_string(), place: "rule".to_owned(), text }.into()
        );
    }
    Ok(())
}

fn found(state: &PolicyState, rule: &RuleId) -> Result<(), PolicyError> {
    state.rules().get(rule).map(|_| ()).ok_or_else(|| PolicyError::RuleNotFound(rule.clone()))
}
