//! Rules as Cedar policies and back, for the part of each that the other can say.
//!
//! Here the first rule that matches decides, in Cedar one `forbid` outweighs every `permit`. So a rule that denies below
//! rules that allow becomes a `forbid` with an `unless` clause that names them: it applies where none of them does, which
//! is where it would decide. What has no counterpart is left out and named, never brought near to it.
//!
//! Cedar skips a policy whose evaluation fails, where a rule denies. In the subset nothing fails: every request has the
//! attributes that it uses, with their types (`vocabulary`). What can fail here (rates, the own key path) is left out.
//! Outside of policies stay: a requestor who is unknown, suspended or revoked, a request that contradicts itself, and one
//! that more than `MATCHED_RULES_MAX` rules match, all of which are denied here before or beside the rules.

mod ast;
mod comparison;
mod export;
mod expression;
mod fold;
mod import;
mod lexer;
mod parser;
mod quoted;
mod terms;
pub mod vocabulary;
mod writer;

#[cfg(test)]
mod tests;

use base::{limits::NESTING_MAX, visible};
use serde::Serialize;
use thiserror::Error;

pub use export::{Export, LeftOut, export};
pub use import::{Import, NotImported, import};
pub use writer::Unmapped;

/// Bytes of a file of Cedar policies, read or written.
pub const FILE_BYTES_MAX: usize = crate::rules::FILE_BYTES_MAX;
/// Policies in one file.
pub const POLICIES_MAX: usize = 10_000;
/// Nesting of an expression, a parenthesis counting twice: a condition nested as deeply as it may be fits.
pub const EXPRESSION_DEPTH_MAX: usize = 2 * NESTING_MAX + 8;
/// Comparisons in one file, those counted twice that an `if` repeats.
pub const COMPARISONS_MAX: usize = 256 * 1024;
/// Priority of a rule whose policy names none. Where all have one priority, those that deny are tried first.
pub const PRIORITY_USUAL: u32 = 100;

/// Text that is not Cedar, or too much of it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{file}:{line}:{column}: {}", visible(text))]
pub struct CedarError {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub text: String,
}

/// What the policies would be is more than a file may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TooLarge {
    #[error("the rules are more than {POLICIES_MAX} policies")]
    Policies,
    #[error("as policies the rules are more than {FILE_BYTES_MAX} bytes")]
    Bytes,
}

/// What leaving a rule or a policy out does to the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Without {
    /// The result allows what the original refuses.
    AllowsMore,
    /// The result allows nothing that the original refuses.
    AllowsLess,
}

impl Without {
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::AllowsMore => "without it more is allowed",
            Self::AllowsLess => "without it no more is allowed",
        }
    }
}

/// A place in the text, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    at: usize,
    text: String,
}

impl Fault {
    fn new(at: usize, text: impl Into<String>) -> Self {
        Self { at, text: text.into() }
    }
}
