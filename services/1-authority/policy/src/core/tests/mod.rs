//! Tests of the core as a whole; single parts have theirs beside them.

mod actions;
mod authority;
mod conditions;
mod engine;
mod flight;
mod index;
mod later;
mod lineage;
mod recent;
mod reference;
mod restrictions;
mod rules;
mod saved;
mod support;
mod trial;
mod validate;
mod withdrawal;
