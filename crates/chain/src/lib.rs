//! The log's format: entries, chain, groups, segments, signed heads and the verifier; and over the same entries the
//! tree, checkpoints and proofs that others can verify. `docs/format.md` is its text form.
//!
//! Promises: writer and verifier share this crate and nothing else; every length is checked before memory is taken;
//! what was hashed or signed is carried as bytes and never encoded again; any flipped byte is found and named.
//! Never does: writes, clocks, randomness; threads only where the caller says how many; reads only through `ReadAt` and
//! `LogSource`.
//! Calls `base` alone; is a library and cannot die alone.

pub mod checkpoint;
mod codec;
mod diagnose;
mod entry;
mod entry_type;
pub mod evidence;
mod fault;
pub mod genesis;
mod group;
mod head;
pub mod log_edge;
pub mod merkle;
pub mod note;
pub mod payload;
mod segment;
mod signed_head;
mod source;
pub mod tiles;
pub mod tlog_proof;
pub mod tree;
mod validate;
mod verify;
pub mod witness;

pub use diagnose::first_not_zero;
pub use entry::{Entry, EntryHeader, HeaderError};
pub use entry_type::{EntryType, UnknownEntryType};
pub use fault::{Cause, Fault, Part};
pub use group::{
    GROUP_BODY_BYTES_MAX, GROUP_ENTRIES_MAX, GROUP_HEADER_BYTES, GROUP_MAGIC, GroupBuilder, GroupError,
    GroupHeader, RECORD_BYTES_MAX, RECORD_CHECK_BYTES, Record, RecordError, Records, record_bytes,
};
pub use head::{HEAD_FILE_BYTES, HeadError, HeadFile, HeadSlot};
pub use segment::{
    Placed, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES, SEGMENT_MAGIC, SEGMENT_VERSION,
    SegmentHeader, SegmentHeaderError, SegmentReader, segment_first, segment_name,
};
pub use signed_head::{SIGNED_HEAD_BYTES_MAX, SignedHead, SignedHeadError, UnsignedHead};
pub use source::{LogFolder, LogSource, ReadAt};
pub use validate::{ChainError, ChainPoint, validate_chain};
pub use verify::{Report, VerifyOptions, read_log_from, verify_in_parallel, verify_log};
