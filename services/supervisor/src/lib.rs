//! First process: boots, watches, restarts, answers where a service is; and its keeper.
//!
//! Promises: services start in phases and stop in the reverse order, each under what its manifest names and nothing
//! else; what it decides it decides in `core`, without waiting for anybody; its own death stops no service. Never
//! does: start anything that policy refuses once policy runs, keep a key (it unseals those of its services and hands them
//! over), read what services say to each other, keep state of its own on a disk (the keeper, the log and the manifests are its memory). Calls the keeper, the lifecycle
//! of every service, `axiom` (feed and append), `policy` (decisions), and `identity` and `capability_service` when a
//! service of the user is taken in. When it dies, the keeper starts it again and it takes up what runs; when the
//! keeper dies, everything dies.

pub mod core;
pub mod keeper;
pub mod manifest;
pub mod reseal;
pub mod sealing;
mod shell;
pub mod signing;

pub use shell::{Arguments, ArgumentsError, EXIT_EMERGENCY, ReadPlace, main};
