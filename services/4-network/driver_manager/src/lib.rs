//! Which network interfaces of the host can be used, and when that changes.
//!
//! Promises: what it lists is what the kernel said last; a change is told within 50 ms; if messages of the kernel were lost,
//! everything is asked for again. Never does: change an interface, open a socket (the one to the kernel is handed over by
//! the supervisor, since this service has a network namespace of its own and nothing in it), act. Calls nobody. When it dies
//! connections go on; `network` keeps the list that it saw last until it is back.

pub mod core;
mod shell;

pub use shell::{DriverManager, main};
