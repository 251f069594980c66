//! The one append-only, hash-chained log.
//!
//! Promises: one order, one writer; an entry that was answered `Accepted` is durable and stays; a refused unit leaves
//! nothing. Never does: decides what is allowed (that is `policy`), alters or removes an entry, believes a sender's name.
//! Calls nobody. When it dies nothing else stops: appends wait. The next start reads what lies behind
//! its last snapshot before it serves and verifies the rest of the log beside that (decision 0013).

pub mod core;
mod shell;
pub mod snapshot;
pub mod start;
pub mod store;

pub use shell::main;
