//! Does this decision of the Policy Engine allow exactly this use of a key, now?

use base::{AxiomTime, Hash, IdentityId, KeyPath, PublicKey, limits::DECISION_VALIDITY_NS};
use chain::{
    merkle,
    payload::identity::KeyOperation,
    payload::policy::{DecisionBody, PolicyAction, PolicyCondition, PolicyEffect, SignedDecision},
};

use super::{KeyError, encryption::Plain};

/// What is to be done with a key, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Sign {
        message: Hash,
    },
    /// With the key of a purpose; the bytes themselves, not a hash of them.
    SignBytes {
        message: Vec<u8>,
    },
    Encrypt {
        plain: Plain,
    },
    Decrypt {
        sealed: Vec<u8>,
    },
}

impl Operation {
    #[must_use]
    pub const fn kind(&self) -> KeyOperation {
        match self {
            Self::Sign { .. } | Self::SignBytes { .. } => KeyOperation::Sign,
            Self::Encrypt { .. } => KeyOperation::Encrypt,
            Self::Decrypt { .. } => KeyOperation::Decrypt,
        }
    }

    /// What is recorded of it (KEY-35).
    #[must_use]
    pub fn input_hash(&self) -> Hash {
        match self {
            Self::Sign { message } => *message,
            Self::SignBytes { message } => Hash::of(message),
            Self::Encrypt { plain } => Hash::of(plain.as_bytes()),
            Self::Decrypt { sealed } => Hash::of(sealed),
        }
    }

    fn action(&self, key_path: KeyPath) -> PolicyAction {
        match self {
            Self::Sign { .. } | Self::SignBytes { .. } => {
                PolicyAction::Sign { key_path, message_hash: self.input_hash() }
            }
            Self::Encrypt { .. } => PolicyAction::Encrypt { key_path },
            Self::Decrypt { .. } => PolicyAction::Decrypt { key_path },
        }
    }
}

/// KEY-13 and its like. The requestor is named by id; everything else about it is the engine's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UseRequest {
    pub key_path: KeyPath,
    pub operation: Operation,
    pub requestor: IdentityId,
    pub authorization: SignedDecision,
}

/// A decision whose signature is the engine's.
pub(super) struct Genuine {
    pub(super) body: DecisionBody,
    /// Names the decision in the log, whatever a request says about it.
    pub(super) body_hash: Hash,
}

fn invalid(why: &str) -> KeyError {
    KeyError::InvalidDecision(why.to_owned())
}

/// Checks the signature of the pinned policy key over the root that the decision's path leads to.
pub(super) fn genuine(
    policy_key: Option<&PublicKey>,
    decision: &SignedDecision,
) -> Result<Genuine, KeyError> {
    let key = policy_key.ok_or_else(|| invalid("the policy key is not known yet"))?;
    let signature = &decision.signature;
    let root = merkle::root_from_path(
        merkle::leaf(&decision.body),
        signature.index,
        signature.count,
        &signature.path,
    )
    .ok_or_else(|| invalid("its merkle path does not fit"))?;
    if !merkle::verify_root(key, &root, &signature.root) {
        return Err(invalid("it is not signed by the policy engine"));
    }
    let body = decision.decode_body().map_err(|error| invalid(&error.to_string()))?;
    Ok(Genuine { body, body_hash: Hash::of(&decision.body) })
}

/// Everything about a genuine decision but whether it was used and committed. `now` is None while Axiom time is unknown.
pub(super) fn allows(
    decision: &DecisionBody,
    request: &UseRequest,
    now: Option<AxiomTime>,
) -> Result<AxiomTime, KeyError> {
    if decision.action != request.operation.action(request.key_path.clone()) {
        return Err(invalid("it is for another action, key path or message"));
    }
    if decision.requestor != request.requestor {
        return Err(KeyError::Unauthorized("the decision names another requestor".to_owned()));
    }
    let now = now.ok_or(KeyError::DecisionExpired)?;
    if now >= expires_at(decision) {
        return Err(KeyError::DecisionExpired);
    }
    match decision.effect {
        PolicyEffect::Deny => Err(KeyError::Unauthorized("policy denied it".to_owned())),
        PolicyEffect::Allow | PolicyEffect::AllowWithConditions => {
            let unmet = |condition| holds(condition, request.requestor, now, 0) != Some(true);
            match decision.conditions.iter().any(unmet) {
                true => Err(KeyError::Unauthorized("a condition of the decision is not met".to_owned())),
                false => Ok(now),
            }
        }
    }
}

pub(super) fn expires_at(decision: &DecisionBody) -> AxiomTime {
    decision.timestamp.saturating_add(DECISION_VALIDITY_NS)
}

/// Conditions are nested no deeper than CBOR itself.
const DEPTH_MAX: usize = base::limits::NESTING_MAX;

/// None for what this service cannot judge; that is never taken for yes, nor turned into yes by a `Not`.
fn holds(condition: &PolicyCondition, requestor: IdentityId, now: AxiomTime, depth: usize) -> Option<bool> {
    use chain::payload::policy::IdentityMatcher;
    if depth > DEPTH_MAX {
        return None;
    }
    let inner = |condition| holds(condition, requestor, now, depth + 1);
    match condition {
        PolicyCondition::Always => Some(true),
        PolicyCondition::Never => Some(false),
        PolicyCondition::Before(time) => Some(now < *time),
        PolicyCondition::After(time) => Some(now >= *time),
        PolicyCondition::Identity(IdentityMatcher::Exact(id)) => Some(*id == requestor),
        PolicyCondition::And(all) => all.iter().map(inner).try_fold(true, |so_far, one| Some(so_far & one?)),
        PolicyCondition::Or(any) => any.iter().map(inner).try_fold(false, |so_far, one| Some(so_far | one?)),
        PolicyCondition::Not(one) => inner(one).map(|holds| !holds),
        PolicyCondition::Identity(_)
        | PolicyCondition::Resource(_)
        | PolicyCondition::Action(_)
        | PolicyCondition::RateLimit { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::DurationNs;
    use chain::payload::policy::IdentityMatcher;

    #[test]
    fn a_condition_that_cannot_be_judged_is_never_met() {
        let rate = PolicyCondition::RateLimit { count: 1, window: DurationNs(1) };
        let not = |condition| PolicyCondition::Not(Box::new(condition));
        let (always, never) = (PolicyCondition::Always, PolicyCondition::Never);
        let five = PolicyCondition::After(AxiomTime(5));
        for (condition, expected) in [
            (rate.clone(), None),
            (not(rate.clone()), None),
            (PolicyCondition::Or(vec![always.clone(), rate.clone()]), None),
            (PolicyCondition::And(vec![never.clone(), rate]), None),
            (PolicyCondition::And(vec![]), Some(true)),
            (PolicyCondition::Or(vec![]), Some(false)),
            (PolicyCondition::And(vec![always.clone(), never.clone()]), Some(false)),
            (PolicyCondition::And(vec![always.clone(), always.clone()]), Some(true)),
            (PolicyCondition::Or(vec![never.clone(), always.clone()]), Some(true)),
            (PolicyCondition::Or(vec![always.clone(), always]), Some(true)),
            (PolicyCondition::Identity(IdentityMatcher::Exact(IdentityId([1; 32]))), Some(true)),
            (PolicyCondition::Identity(IdentityMatcher::Exact(IdentityId([2; 32]))), Some(false)),
            (PolicyCondition::Identity(IdentityMatcher::Pattern("*".to_owned())), None),
            (not(never), Some(true)),
            (five.clone(), Some(true)),
            (PolicyCondition::After(AxiomTime(6)), Some(false)),
            (PolicyCondition::Before(AxiomTime(5)), Some(false)),
            (PolicyCondition::Before(AxiomTime(6)), Some(true)),
        ] {
            assert_eq!(holds(&condition, IdentityId([1; 32]), AxiomTime(5), 0), expected, "{condition:?}");
        }
        let deep = |levels| {
            let condition = (0..levels).fold(five.clone(), |inner, _| not(inner));
            holds(&condition, IdentityId([1; 32]), AxiomTime(5), 0)
        };
        assert_eq!(deep(DEPTH_MAX), Some(DEPTH_MAX.is_multiple_of(2)));
        assert_eq!(deep(DEPTH_MAX + 1), None);
    }
}
