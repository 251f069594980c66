//! The one append-only, hash-chained log.
