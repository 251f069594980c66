//! Tests of the core as a whole; single parts have theirs beside them.

mod actions;
mod conditions;
mod reference;
mod support;
