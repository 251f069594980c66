//! Limits that more than one part must agree on. A limit of one part stands in that part.

/// Largest payload of an entry, in bytes; a `u16` less one, so that larger data goes by hash.
/// Header (88 bytes) and payload together stay below 65 536 bytes, the size of a C2SP bundle leaf.
pub const ENTRY_SIZE_BYTES_MAX: usize = 65_535;
/// Bytes of an entry's header.
pub const ENTRY_HEADER_BYTES: usize = 88;
/// What remains for the payload.
pub const PAYLOAD_SIZE_BYTES_MAX: usize = ENTRY_SIZE_BYTES_MAX - ENTRY_HEADER_BYTES;
/// Segments of a key path (KEY open point 3).
pub const KEY_PATH_SEGMENTS_MAX: usize = 16;
/// Bytes of one key path segment (KEY open point 3).
pub const KEY_PATH_SEGMENT_BYTES_MAX: usize = 255;
/// Bytes of a name: service, identity part, rule.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of one message on a contract socket, without headers (SUP open point 17).
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// A decision can be used for this long, in nanoseconds of Axiom time (POL open point 4).
pub const DECISION_VALIDITY_NS: u64 = 30_000_000_000;
/// Nesting of CBOR and of policy conditions; deeper input is refused before recursion.
pub const NESTING_MAX: usize = 32;
