//! Runs programs from content-addressed images under an identity and limits.
