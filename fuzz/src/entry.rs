//! Any bytes as an entry's header, its record, and the payload of each entry type.
//!
//! Strategy: the whole input goes to every decoder; the seeds are one payload of each type, so that the engine begins
//! with CBOR that is accepted.
//! Invariants: a refusal is one line; what is accepted has one encoding and one entry type; the head that can be read
//! without knowing the type is the payload's; every payload can be shown as JSON; a decision's body has one encoding
//! too.

use base::Hash;
use chain::{
    EntryHeader, EntryType, Record, merkle,
    payload::{
        EnvelopeHead, Payload,
        policy::{DecisionBody, SignedDecision},
    },
};

pub fn run(input: &[u8]) -> bool {
    let header = EntryHeader::decode(input);
    match &header {
        Ok(header) => assert!(input.starts_with(&header.encode())),
        Err(error) => super::check::one_line(error),
    }
    let record = Record::split(input);
    match &record {
        Ok((record, rest)) => {
            assert_eq!(record.size_bytes() + rest.len(), input.len());
            assert_eq!(
                record.verify_alone().ok(),
                record.verify_alone().ok().map(|_| record.to_entry().hash())
            );
        }
        Err(error) => super::check::one_line(error),
    }
    let head = EnvelopeHead::peek(input).ok();
    let mut accepted = record.is_ok_and(|(record, _)| record.verify_alone().is_ok());
    for kind in EntryType::ALL {
        match Payload::decode(kind.code(), input) {
            Ok(payload) => {
                assert_eq!(payload.entry_type(), kind.code());
                assert_eq!(head, Some(payload.head()));
                holds(&payload);
                accepted = true;
            }
            Err(error) => super::check::one_line(&error),
        }
    }
    accepted
}

fn holds(payload: &Payload) {
    assert!(payload.body_json(serde_json::value::Serializer).is_ok(), "no JSON for {payload:?}");
    if let Payload::PolicyDecision(decision) = payload {
        decided(&decision.body);
    }
}

fn decided(decision: &SignedDecision) {
    let body = super::check::one_encoding::<DecisionBody>(&decision.body);
    assert_eq!(decision.decode_body().ok(), body);
    let signature = &decision.signature;
    let leaf = merkle::leaf(&decision.body);
    // Whatever the numbers say: a root or none.
    let _: Option<Hash> = merkle::root_from_path(leaf, signature.index, signature.count, &signature.path);
}
