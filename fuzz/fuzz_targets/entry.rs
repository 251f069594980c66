//! Any bytes as entry header, record and payload. Invariants: no panic; what is accepted has one encoding.
#![no_main]

use chain::{
    EntryHeader, EntryType, Record,
    payload::{EnvelopeHead, Payload},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(header) = EntryHeader::decode(input) {
        assert!(input.starts_with(&header.encode()));
    }
    if let Ok((record, rest)) = Record::split(input) {
        assert_eq!(record.size_bytes() + rest.len(), input.len());
        let _ = record.verify_alone();
    }
    let head = EnvelopeHead::peek(input);
    for kind in EntryType::ALL {
        if let Ok(payload) = Payload::decode(kind.code(), input) {
            assert_eq!(payload.entry_type(), kind.code());
            assert_eq!(head.as_ref().ok(), Some(&payload.head()));
        }
    }
});
