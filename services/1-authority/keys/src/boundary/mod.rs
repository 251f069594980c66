//! The process that holds the seed: one thread, no async runtime, no network, no file but what it was handed.
//!
//! Promises: it only receives a request, derives, signs, and sends the answer, under the sandbox's profile `boundary`;
//! the seed lies in secret memory and nowhere else; a malformed request ends the connection, never the process by a panic.
//! Never does: open a file by name, write a file, return private material. Calls nobody.
//! When it dies, the supervisor starts it again with the same descriptors.

mod client;
mod holder;
mod inherited;
mod process;
pub mod protocol;

pub use client::{BoundaryClient, ClientError};
pub use holder::SealingError;
pub use inherited::run;
pub use process::{BoundaryError, Inputs, main};
