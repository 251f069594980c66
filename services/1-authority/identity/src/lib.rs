//! Registry of principals and issuer of tokens.
//!
//! Promises: an identity's id is the hash of its key, its key the one that `keys` derives for its path; names and keys are
//! unique; nothing changes but by an entry of the log that policy allowed; a token is signed only after its issue is recorded.
//! An SVID is issued to the service behind the socket alone, and its private key, made for it, is not kept.
//! Never does: hold a private key of an identity, decide, read a clock of its own. Calls `keys` (public keys, and the use of
//! the trust domain's authority) and `policy` (acts, and decisions about that use). When it dies, tokens go on being
//! verified, for every service does that by itself; the registry is folded again from the log.

pub mod core;
mod shell;

pub use core::IdentityError;
pub use shell::{IdentityService, main};
