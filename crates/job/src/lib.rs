//! Deterministic jobs as data (spec 14): what a manifest says, what a job goes through, what its receipt proves.
//!
//! Promises: a text is accepted whole or refused with the place and the reason; every limit is checked before anything
//! of that size is built; a receipt that `check` accepts was signed by the key that its issuer is the hash of, over
//! everything but times and metrics. Never does: I/O, clocks, dice. Calls nobody; is a library and cannot die alone.

mod audit;
mod environment;
mod error;
pub mod limits;
mod manifest;
mod receipt;
mod state;
mod validate;
mod verify;

pub use audit::{AuditTrail, Outcome, Recorded};
pub use environment::{ENVIRONMENT_VERSION, EnvironmentType, environment_id};
pub use error::JobError;
pub use manifest::{
    Concurrency, Determinism, EnvironmentConfig, ExecType, ExecutableSpec, FloatingPoint, InputSpec,
    InputType, JobManifest, ManifestError, OutputSpec, OutputType, ResourceConfig, Seed,
};
pub use receipt::{
    Binding, EnvironmentBinding, Metrics, Proof, RECEIPT_VERSION, Receipt, ReceiptBody, ReceiptFault,
    ReceiptHeader, ReceiptSignature, ReceiptStatus, ReceiptType,
};
pub use state::{JobEvent, JobState, WrongMove, next};
pub use verify::{VerificationResult, VerifyError, compare_outputs};
