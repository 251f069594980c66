//! Decides every consequential act.
//!
//! Promises: equal state and equal request give an equal decision, before and after a restart, and for anybody who holds
//! the log; nothing matches unless a rule says so; what cannot be evaluated denies; the answer names its rule.
//! Never does: effects, calls to other services than `axiom`, reads of anything but the log and its own key.
//! Calls `axiom` alone. When it dies, nothing consequential happens until its replacement has folded the log again.

pub mod cases;
pub mod cedar;
pub mod core;
pub mod rules;
mod shell;

pub use shell::main;
