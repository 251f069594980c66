//! Pure part of the service: which use of a key is allowed, in which order it happens, and what a key is.
//! No file, socket, clock, thread or dice; `now` and entropy are arguments.

mod decision;
pub(crate) mod derive;
pub(crate) mod encryption;
pub(crate) mod epochs;
mod error;
pub(crate) mod es256;
mod ledger;
mod machine;
mod public;
pub(crate) mod purpose;
mod saved;
pub(crate) mod verify;
pub(crate) mod words;

pub use decision::{Operation, UseRequest};
pub use encryption::{CIPHERTEXT_BYTES_MAX, EncryptionError, OVERHEAD_BYTES, PLAINTEXT_BYTES_MAX, Plain};
pub use epochs::{EPOCH_HEADER_BYTES, EPOCH_MAX, ROTATED_PATHS_MAX};
pub use error::KeyError;
pub use machine::{
    Answer, BoundaryFailure, BoundaryRequest, COMMIT_WAIT_NS, Defence, Effect, Event, KeysCore, NotRecorded,
    Output, PENDING_MAX, PublicKeys, RequestId, Used,
};
pub use public::VerifyingKey;
pub use purpose::{Purpose, PurposeError, SIGNED_BYTES_MAX};
pub use saved::FOLD_VERSION;
pub use verify::{ALGORITHMS, BYTES_ALGORITHMS, ES256_ALGORITHMS, verify};
pub use words::{WORDS, WORDS_TEXT_BYTES_MAX, WordsError};
