//! The only way out: sockets as calls, each connection authorised and on record before its first packet.
//!
//! Promises: a connection that policy does not allow sends nothing, and leaves its socket as it was; one that it allows is
//! an entry of the log before it is made, with whose it is, where it goes and what it may use; a socket belongs to the
//! identity that made it; what is revoked is cut, with all that is in flight. Never does: look into what is carried, write
//! it down, change an interface. Calls `policy` (decisions and entries) and `driver_manager` (is there a way at all). When it
//! dies its connections end with it, and everything else goes on.

pub mod core;
mod shell;

pub use shell::{Network, main};
