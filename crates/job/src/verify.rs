//! What a verification says (ACT-29 to ACT-31).

use base::{AxiomTime, Hash};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{JobError, receipt::Binding};

/// In the order in which it is looked: signature, inputs, environment, running again, comparing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerificationResult {
    Verified { receipt_hash: Hash, verified_at: AxiomTime },
    OutputMismatch { expected: Vec<Binding>, actual: Vec<Binding> },
    InputNotFound { missing: Vec<Hash> },
    EnvironmentMismatch { expected: Hash, actual: Hash },
    InvalidSignature,
    ExecutionFailed { error: JobError },
}

impl VerificationResult {
    #[must_use]
    pub const fn is_verified(&self) -> bool {
        matches!(self, Self::Verified { .. })
    }
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VerifyError {
    #[error("there is no receipt {0}")]
    ReceiptNotFound(String),
    #[error("{hash} is not in the content store")]
    ContentNotFound { hash: Hash },
    #[error("the environment cannot be had here: {0}")]
    EnvironmentUnavailable(String),
    #[error("it cannot be run again: {0}")]
    ExecutionError(String),
    #[error("the proof does not hold: {0}")]
    ProofFailed(String),
    #[error("running it again took too long")]
    Timeout,
    #[error("running it again passed its limit of {0}")]
    ResourceExceeded(String),
}

/// None if both runs gave the same; else what differs, as it was wanted and as it came.
#[must_use]
pub fn compare_outputs(expected: &[Binding], actual: &[Binding]) -> Option<VerificationResult> {
    let lacks = |these: &[Binding], those: &[Binding]| {
        these.iter().filter(|binding| !those.contains(binding)).cloned().collect::<Vec<_>>()
    };
    let (wanted, came) = (lacks(expected, actual), lacks(actual, expected));
    let differs = !(wanted.is_empty() && came.is_empty());
    differs.then_some(VerificationResult::OutputMismatch { expected: wanted, actual: came })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(name: &str, content: &[u8]) -> Binding {
        Binding { name: name.to_owned(), hash: Hash::of(content), size: content.len() as u64 }
    }

    #[test]
    fn outputs_are_the_same_or_what_differs_is_named() {
        let (a, b, other) = (binding("a", b"1"), binding("b", b"2"), binding("b", b"3"));
        assert_eq!(compare_outputs(&[a.clone(), b.clone()], &[a.clone(), b.clone()]), None);
        let differs = |expected: Vec<Binding>, actual: Vec<Binding>| {
            Some(VerificationResult::OutputMismatch { expected, actual })
        };
        let both = [a.clone(), b.clone()];
        assert_eq!(
            compare_outputs(&both, &[a.clone(), other.clone()]),
            differs(vec![b.clone()], vec![other])
        );
        assert_eq!(compare_outputs(&both, std::slice::from_ref(&a)), differs(vec![b.clone()], vec![]));
        assert_eq!(compare_outputs(&[a], &both), differs(vec![], vec![b]));
    }
}
