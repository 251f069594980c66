//! The bytes of SSH that keys and their agent need: public keys, what is signed, the agent's messages.
//!
//! Promises: reads any bytes without a panic and without taking memory for what they claim; what it accepts is the one
//! encoding of what it says. Never does: I/O, signing, anything with a key other than Ed25519. Knows no service.

pub mod agent;
mod key;
mod signed;
mod wire;

pub use key::{ED25519, key_blob, key_of_blob, public_line};
pub use signed::{FormatError, NAMESPACES, Signed, signed};
pub use wire::WireError;
