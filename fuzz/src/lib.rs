//! What reads bytes from outside, each driven by bytes of anybody's choice: one module per fuzz target.
//!
//! Promises: a target takes any bytes, and panics only where the code that it drives does not hold what the target's
//! header says. Never does: I/O, clocks, dice; the input comes from the engine (`fuzz_targets/`, feature `engine`), from
//! `corpus/`, or from the test that changes the corpus by a seeded generator. Calls the decoders. Is a library.

pub mod cedar;
mod check;
pub mod context;
pub mod datagram;
pub mod dns;
pub mod entry;
pub mod evidence;
pub mod first_bytes;
pub mod frame;
pub mod import;
pub mod job;
pub mod key_path;
pub mod log_segment;
pub mod manifest;
pub mod proxied;
pub mod rules;
pub mod ssh;
pub mod svid;
pub mod token;
pub mod url;

/// Drives its decoders with one input; true if one of them accepted it.
pub type Target = fn(&[u8]) -> bool;

/// By the names of programs and folders of seeds.
pub const TARGETS: [(&str, Target); 19] = [
    ("manifest", manifest::run),
    ("log_segment", log_segment::run),
    ("entry", entry::run),
    ("key_path", key_path::run),
    ("context", context::run),
    ("token", token::run),
    ("frame", frame::run),
    ("rules", rules::run),
    ("evidence", evidence::run),
    ("ssh", ssh::run),
    ("svid", svid::run),
    ("cedar", cedar::run),
    ("job", job::run),
    ("import", import::run),
    ("dns", dns::run),
    ("url", url::run),
    ("first_bytes", first_bytes::run),
    ("datagram", datagram::run),
    ("proxied", proxied::run),
];
