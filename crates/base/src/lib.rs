//! Ids, hashes, Axiom time, key paths, deterministic CBOR and limits that every part shares.
//!
//! Promises: ids of different kinds do not mix; every decoder bounds its input before it allocates;
//! `cbor::decode` accepts one encoding of a value only. Never does: I/O, clocks, randomness.
//! Calls nobody; is a library and cannot die alone.

mod capability_type;
pub mod cbor;
mod hash;
mod id;
mod key_path;
pub mod layout;
pub mod limits;
mod privileges;
mod text;
mod time;
mod tree_id;

pub use capability_type::{CAPABILITY_TYPES, capability_type};
pub use hash::{Hash, HashError};
pub use id::{
    AxiomRef, CapabilityId, ConnectionId, CredentialId, EntryKey, IdError, IdentityId, JobId, Nonce,
    ProcessId, PublicKey, RuleId, Sequence, ServiceId, Signature, TokenId, TraceId,
};
pub use key_path::{KeyPath, KeyPathError, PathSegment, key_paths};
pub use privileges::{LINUX_CAPABILITIES, PRIVILEGES};
pub use text::visible;
pub use time::{AxiomTime, DurationNs};
pub use tree_id::TreeId;
