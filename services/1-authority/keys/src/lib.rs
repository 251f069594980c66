//! Derives keys from one sealed seed and uses them inside a boundary process.
//!
//! Promises: the seed and every private key stay in the boundary, a process of its own; no signature is released
//! without a decision of the Policy Engine for exactly that signature, used once, and a record of it in the log.
//! Never does: store a private key, open a network socket, log or return private material, trust what a request says
//! about its decision. Calls `policy` (records) over the authority channel, and its boundary over one socket.
//! When the service dies, nothing is lost: decisions and uses are folded again from the log. When the boundary dies,
//! key operations fail until the supervisor has started it again; the sealed seed is on disk.

pub mod boundary;
pub mod core;
mod shell;

pub use core::KeyError;
pub use shell::{EXIT_BOUNDARY_GONE, KeysService, main};
