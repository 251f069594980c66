//! Exit codes that mean something.
//!
//! 0 done · 1 failed, or a test or a comparison came out otherwise · 2 wrong command line or unusable file · 3 refused for want of a
//! right · 4 the node does not answer · 5 the log is damaged, or what was checked does not hold ·
//! 6 an import lost something that matters ·
//! 125 `run` itself failed · 126 the program could not be executed · 127 it was not found · otherwise the program's own.

use std::{fmt, process::ExitCode};

use chain::Fault;

/// As with `diff`: it was done, and there is a difference.
pub const DIFFERS: u8 = 1;
/// A wrong command line or a file that cannot be used.
pub const USAGE: u8 = 2;
pub const REFUSED: u8 = 3;
pub const UNREACHABLE: u8 = 4;
pub const DAMAGED: u8 = 5;
/// `import`: something that changes what a service does, or how it is protected, was not mapped.
pub const NOT_MAPPED: u8 = 6;
pub const RUN_FAILED: u8 = 125;
pub const NOT_EXECUTABLE: u8 = 126;
pub const NOT_FOUND: u8 = 127;

/// A failure with an exit code of its own.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    text: String,
}

impl Failure {
    pub fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// What was to be verified does not hold.
    pub fn refused(what: &impl fmt::Display) -> Self {
        Self::new(DAMAGED, format!("does not hold: {what}"))
    }

    pub fn damaged(fault: &Fault) -> Self {
        Self::new(DAMAGED, format!("the log is damaged: {fault}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// The code for an error that reached the top.
pub fn code_of(error: &anyhow::Error) -> ExitCode {
    let failure = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    ExitCode::from(failure.map_or(1, |failure| failure.code))
}
