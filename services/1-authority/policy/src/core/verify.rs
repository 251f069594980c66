//! Makes recorded decisions again from the log alone (POL-49). Needs no engine and no key but the one that genesis pins.

use base::{AxiomRef, Hash, cbor};
use chain::{
    merkle::{leaf, root_from_path, verify_root},
    payload::{
        Payload, PayloadError,
        policy::{DecisionBody, PolicyRequest, SignedDecision},
    },
};

use super::{PolicyState, denials::plain_reason, evaluate::evaluate};

#[derive(Clone, Debug, PartialEq)]
pub enum Verification {
    Verified,
    /// The state and the request that the log holds give another decision.
    Mismatch {
        recorded: Box<DecisionBody>,
        expected: Box<DecisionBody>,
    },
    /// Not signed by the key that genesis pins, or not readable.
    InvalidSignature,
}

/// `state` is the fold of everything before the decision.
#[must_use]
pub fn verify(state: &PolicyState, signed: &SignedDecision) -> Verification {
    let (Some(pinned), Ok(recorded)) = (state.pinned(), cbor::decode::<DecisionBody>(&signed.body)) else {
        return Verification::InvalidSignature;
    };
    let signature = &signed.signature;
    let root = root_from_path(leaf(&signed.body), signature.index, signature.count, &signature.path);
    if !root.is_some_and(|root| verify_root(&pinned.policy_key, &root, &signature.root)) {
        return Verification::InvalidSignature;
    }
    verify_body(state, recorded)
}

/// Without the signature.
#[must_use]
pub fn verify_body(state: &PolicyState, recorded: DecisionBody) -> Verification {
    let request = request_of(&recorded);
    // A request without a signature always evaluates.
    let Ok(mut expected) = evaluate(state, &request, recorded.timestamp) else {
        return Verification::InvalidSignature;
    };
    if !recorded.allows() && recorded.reason.as_deref().map(plain_reason) == expected.reason.as_deref() {
        expected.reason.clone_from(&recorded.reason);
    }
    match recorded == expected {
        true => Verification::Verified,
        false => Verification::Mismatch { recorded: Box::new(recorded), expected: Box::new(expected) },
    }
}

/// The request that a decision was made for, without its signature.
#[must_use]
pub fn request_of(body: &DecisionBody) -> PolicyRequest {
    PolicyRequest {
        requestor: body.requestor,
        action: body.action.clone(),
        resource: body.resource.clone(),
        context: body.context.clone(),
        nonce: body.nonce,
        signature: None,
    }
}

/// Folds a log entry by entry and verifies each decision at its own position.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    state: PolicyState,
}

impl Replay {
    #[must_use]
    pub fn state(&self) -> &PolicyState {
        &self.state
    }

    /// Some for a decision. Entry types that decide nothing are passed over.
    pub fn step(
        &mut self,
        at: AxiomRef,
        entry_type: u32,
        bytes: &[u8],
    ) -> Result<Option<Verification>, PayloadError> {
        let payload = match Payload::decode(entry_type, bytes) {
            Ok(payload) => payload,
            Err(PayloadError::UnknownType(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let verification = match &payload {
            Payload::PolicyDecision(envelope) => Some(verify(&self.state, &envelope.body)),
            _ => None,
        };
        self.state.apply_entry(at, &payload, bytes);
        Ok(verification)
    }

    #[must_use]
    pub fn state_hash(&self) -> Hash {
        self.state.state_hash()
    }
}
