//! Any text as a file of policy rules.
//!
//! Strategy: the text goes through the loader whole, for two nodes with different admins. A dictionary has the keys.
//! Invariants: a refusal is one line, at a place inside the text, the same place whoever the admin is; what is accepted
//! may be stored, has ids of its own, prints as a file that reads back as the same rule, and survives the log's encoding
//! and the contract's messages.

use base::{IdentityId, cbor};
use chain::payload::policy::PolicyRule;
use contracts::policy::v1 as pb;
use policy::{
    core::validate,
    rules::{FILE_BYTES_MAX, parse, to_toml},
};

const FILE: &str = "a.toml";
const ADMIN: IdentityId = IdentityId([0xad; 32]);
const OTHER_ADMIN: IdentityId = IdentityId([0x0b; 32]);

pub fn run(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    match (parse(FILE, text, ADMIN), parse(FILE, text, OTHER_ADMIN)) {
        (Ok(rules), Ok(_)) => {
            rules.iter().for_each(accepted);
            let ids: std::collections::BTreeSet<_> = rules.iter().map(|rule| &rule.id).collect();
            assert_eq!(ids.len(), rules.len());
            !rules.is_empty()
        }
        (Err(error), Err(other)) => {
            super::check::one_line(&error);
            assert_eq!((error.line, error.column), (other.line, other.column));
            if text.len() <= FILE_BYTES_MAX {
                super::check::place(text, error.line, error.column);
            }
            false
        }
        (one, other) => {
            assert_eq!(one.is_ok(), other.is_ok(), "accepted for one admin alone");
            false
        }
    }
}

fn accepted(rule: &PolicyRule) {
    assert_eq!(validate(rule), Ok(()));
    assert_eq!(cbor::decode(&cbor::encode(rule)).as_ref(), Ok(rule));
    let printed = to_toml(rule);
    assert_eq!(
        parse(FILE, &printed, ADMIN).as_deref(),
        Ok(std::slice::from_ref(rule)),
        "printed as\n{printed}"
    );
    // A list of no actions matches nothing and has no message.
    let message = pb::PolicyRule::from(rule);
    if let Ok(back) = PolicyRule::try_from(&message) {
        assert_eq!(pb::PolicyRule::from(&back), message);
    }
}
