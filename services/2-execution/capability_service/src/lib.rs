//! Who holds which right on which object.
//!
//! Promises: a capability is one entry of the log that policy allowed; what is derived from another never permits more
//! and falls with it; after a revocation was answered no running service honours it, or the reply names those that may.
//! A right with a rate permits no use more, whoever kills the service.
//! Never does: decide who may grant (policy does), hand out descriptors, write down a use. Calls `policy` (acts) and
//! `axiom` (who has folded what). When it dies nothing is lost and checks go on everywhere: they are look-ups in each service's
//! own fold; only new grants, revocations and counted uses wait, and rates count as used up for a window.

pub mod core;
mod shell;

pub use core::CapabilityError;
pub use shell::{CapabilityService, main};
