//! Tests of the core as a whole; single parts have theirs beside them.

mod actions;
mod conditions;
mod engine;
mod reference;
mod rules;
mod support;
