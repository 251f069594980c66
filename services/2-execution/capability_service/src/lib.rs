//! Who holds which right on which object.
//!
//! Promises: a capability is one entry of the log that policy allowed; what is derived from another never permits more
//! and falls with it; after a revocation was answered no running service honours it, or the reply names those that may.
//! Never does: decide who may grant (policy does), hand out descriptors, count uses. Calls `policy` (acts) and `axiom`
//! (who has folded what). When it dies nothing is lost and checks go on everywhere: they are look-ups in each service's
//! own fold; only new grants and revocations wait.

pub mod core;
mod shell;

pub use core::CapabilityError;
pub use shell::{CapabilityService, main};
