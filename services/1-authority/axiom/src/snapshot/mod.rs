//! Snapshots: what a start would make of every entry so far, signed, beside the head (AX-54, AX-55; decision 0013).
//!
//! Promises: a snapshot is folded from what is durable, apart from the thread that orders; it is there whole or not at
//! all; what is wrong with one in any way is told and is as if it were not there. Never does: hold up a commit, take the
//! place of the log: every one of them can be removed at any time.

mod body;
mod files;
mod writer;

pub use body::{SNAPSHOT_BYTES_MAX, SNAPSHOT_VERSION, SnapshotError};
pub use files::{RefusedSnapshots, SNAPSHOT_FOLDER, Snapshot, Snapshots};
pub use writer::{Policy, Writer};
