//! The log's format: entries, payloads, chain, segments and the verifier.

pub mod payload;
