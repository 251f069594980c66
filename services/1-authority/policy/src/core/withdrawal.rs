//! What takes authority away, and is therefore not answered before everybody goes by it.

use chain::payload::{
    Body, Payload,
    identity::{CredentialRevoked, IdentityChange, IdentityStatus, IdentityUpdated},
    policy::{PolicyEffect, PolicyRuleAdded, PolicyRuleRemoved},
};

use super::Entry;

/// Of these types some or all entries do; nothing else is decoded for the question.
const CANDIDATES: [u32; 4] = [
    IdentityUpdated::ENTRY_TYPE,
    CredentialRevoked::ENTRY_TYPE,
    PolicyRuleAdded::ENTRY_TYPE,
    PolicyRuleRemoved::ENTRY_TYPE,
];

/// Whether somebody may do less once this entry is folded. A revoked capability is not among them: `capability_service`
/// names laggards in its own answer.
#[must_use]
pub fn withdraws(entry: &Entry) -> bool {
    if !CANDIDATES.contains(&entry.entry_type) {
        return false;
    }
    match Payload::decode(entry.entry_type, &entry.payload) {
        Ok(Payload::IdentityUpdated(updated)) => match updated.body.change {
            IdentityChange::Status { new, .. } => new != IdentityStatus::Active,
            IdentityChange::TokenRevoked { .. } => true,
            _ => false,
        },
        // One that allows under conditions may stand before one that allows without.
        Ok(Payload::PolicyRuleAdded(added)) => added.body.rule.effect != PolicyEffect::Allow,
        Ok(Payload::CredentialRevoked(_) | Payload::PolicyRuleRemoved(_)) => true,
        _ => false,
    }
}
