//! The one append-only, hash-chained log.
//!
//! Promises: one order, one writer; an entry that was answered `Accepted` is durable and stays; a refused unit leaves
//! nothing. Never does: decides what is allowed (that is `policy`), alters or removes an entry, believes a sender's name.
//! Calls nobody. When it dies nothing else stops: appends wait, and the next start verifies the log before it serves.

pub mod core;
mod shell;
pub mod store;

pub use shell::main;
