//! What takes something away is told from what gives it, by what the entry says and by nothing else.

use base::{CredentialId, TokenId};
use chain::payload::{
    Payload,
    identity::{CredentialRevoked, IdentityChange, IdentityStatus, IdentityUpdated},
    policy::{PolicyCondition, PolicyEffect},
};

use super::support::{ADMIN, BOB, added, allow, envelope, genesis, id, removed, rule, status};
use crate::core::{Entry, withdraws};
use IdentityStatus::{Active, Revoked, Suspended};
use PolicyCondition::Always;

fn entry(payload: &Payload) -> Entry {
    let bytes = match payload {
        Payload::IdentityUpdated(entry) => entry.to_bytes(),
        Payload::CredentialRevoked(entry) => entry.to_bytes(),
        Payload::PolicyRuleAdded(entry) => entry.to_bytes(),
        Payload::PolicyRuleRemoved(entry) => entry.to_bytes(),
        Payload::Genesis(entry) => entry.to_bytes(),
        other => panic!("{other:?}"),
    };
    Entry { entry_type: payload.entry_type(), payload: bytes.unwrap() }
}

fn change(change: IdentityChange) -> Payload {
    Payload::IdentityUpdated(envelope(IdentityUpdated { identity: id(BOB), change }))
}

#[test]
fn only_what_takes_something_away_waits() {
    let token = TokenId([1; 16]);
    let issued = IdentityChange::TokenIssued {
        token,
        channel: "terminal".to_owned(),
        expires_at: super::support::NOW,
    };
    let revoked = CredentialRevoked {
        identity: id(BOB),
        credential: CredentialId([2; 16]),
        by: id(ADMIN),
        reason: String::new(),
    };
    let only_if = rule("r", 1, PolicyEffect::AllowWithConditions, Always);
    for (payload, expected) in [
        (status(BOB, Active, Suspended), true),
        (status(BOB, Suspended, Revoked), true),
        (status(BOB, Suspended, Active), false),
        (change(IdentityChange::TokenRevoked { token, by: id(ADMIN) }), true),
        (change(issued), false),
        (Payload::CredentialRevoked(envelope(revoked)), true),
        (added(rule("r", 1, PolicyEffect::Deny, Always)), true),
        (added(only_if), true),
        (added(allow(Always)), false),
        (removed("r"), true),
        (genesis(vec![]), false),
    ] {
        assert_eq!(withdraws(&entry(&payload)), expected, "{payload:?}");
    }
    let mut cut = entry(&removed("r"));
    cut.payload.pop();
    assert!(!withdraws(&cut), "what is no entry takes nothing away");
}
