//! Limits of the engine. Each is checked before anything is stored.

/// Rules in force at once.
pub const RULES_MAX: usize = 100_000;
/// CBOR bytes of one rule; a decision that carries the rule and one that carries its restrictions must fit an entry.
pub const RULE_BYTES_MAX: usize = 16 * 1024;
/// CBOR bytes of one request, for the same reason.
pub const REQUEST_BYTES_MAX: usize = 20 * 1024;
/// Rules that may match one request; a decision names all of them and must fit an entry. More deny the request.
pub const MATCHED_RULES_MAX: usize = 256;
/// Conditions in one rule, restrictions included.
pub const CONDITION_NODES_MAX: usize = 256;
/// Restrictions of one rule.
pub const RESTRICTIONS_MAX: usize = 32;
/// Bytes of a glob; matching takes at most this many steps for each character of the text.
pub const PATTERN_BYTES_MAX: usize = 256;
/// Bytes of a resource's id: a path of the host's longest kind.
pub const RESOURCE_BYTES_MAX: usize = 4096;
/// Bytes of a rule's description.
pub const DESCRIPTION_BYTES_MAX: usize = 1024;
/// `count` of a rate limit: so many times are kept for each requestor.
pub const RATE_COUNT_MAX: u32 = 10_000;
/// Window of a rate limit, in nanoseconds: 31 days.
pub const RATE_WINDOW_NS_MAX: u64 = 31 * 24 * 3600 * 1_000_000_000;
/// Times kept for all rate limits together, 8 bytes each. When full, rate limits cannot be evaluated and deny.
pub const RATE_EVENTS_MAX: usize = 1_000_000;
/// Allowed decisions remembered inside their validity, so that each is used once. When full, the engine is busy.
pub const DECISIONS_RECENT_MAX: usize = 1 << 20;
/// Length of the chain of parents above an identity.
pub const IDENTITY_DEPTH_MAX: usize = 32;
/// Pairs in a context's metadata.
pub const METADATA_PAIRS_MAX: usize = 32;
/// Bytes of a key or a value in a context's metadata.
pub const METADATA_BYTES_MAX: usize = 256;
/// Denials recorded singly for each identity and second; the rest is counted (DESIGN 2).
pub const DENIALS_SINGLE_PER_S: u32 = 20;
/// Units sent and not answered; more wait.
pub const UNITS_IN_FLIGHT_MAX: usize = 4096;
/// No rule speaks of times before 2020: a smaller number was given in seconds or milliseconds. Nanoseconds.
pub const RULE_TIME_NS_MIN: u64 = 1_577_836_800_000_000_000;
