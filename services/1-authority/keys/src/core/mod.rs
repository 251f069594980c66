//! Pure part of the service: which use of a key is allowed, in which order it happens, and what a key is.
//! No file, socket, clock, thread or dice; `now` and entropy are arguments.

mod decision;
pub(crate) mod derive;
mod error;
mod ledger;
mod machine;
pub(crate) mod verify;

pub use decision::SignRequest;
pub use error::KeyError;
pub use machine::{
    Answer, BoundaryFailure, BoundaryRequest, COMMIT_WAIT_NS, Effect, Event, KeysCore, NotRecorded,
    PENDING_MAX, RequestId, SignResponse,
};
pub use verify::{KeyInfo, verify};
