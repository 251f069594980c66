//! The engine itself: pure, so that every recorded decision can be made again from the log alone.

mod admit;
mod anchor;
pub mod authority;
mod condition;
mod denials;
mod digest;
pub mod engine;
pub mod evaluate;
pub mod explain;
pub mod glob;
mod identities;
mod index;
mod later;
pub mod limits;
mod rates;
mod recent;
mod request;
mod rule_list;
mod rule_set;
mod seal;
mod state;
pub mod trial;
mod validate;
pub mod verify;
mod withdrawal;

use base::RuleId;
use thiserror::Error;

pub use admit::Refusal;
pub use condition::{Fault, is_at_or_below, is_normal_path};
pub use denials::{counted_reason, plain_reason};
pub use engine::{Engine, Entry, Item, OutOfOrder, Outcome, Settled, Unit};
pub use evaluate::{Layer, Verdict, decide, evaluate, unmet};
pub use identities::{Identities, Principal};
pub use later::later_by;
pub use rates::Rates;
pub use recent::{Recent, RecentDecision, Used};
pub use rule_list::{PolicyStateSnapshot, RuleFilter};
pub(crate) use rule_set::order;
pub use rule_set::{Match, RuleSet, StoredRule};
pub use seal::{SealedUnit, seal};
pub use state::{FOLD_VERSION, Pinned, PolicyState, StateError};
pub use validate::validate;
pub use withdrawal::withdraws;

/// Why the engine did not decide, or did not change its rules (POL open point 12).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    #[error("the caller is not authenticated: {0}")]
    Unauthenticated(String),
    #[error("the request's signature is not by its requestor's key")]
    InvalidSignature,
    #[error("not authorised: {0}")]
    Unauthorized(String),
    #[error("there is no rule {0}")]
    RuleNotFound(RuleId),
    #[error("the rule id {0} is in use; remove that rule first or choose another id")]
    DuplicateRule(RuleId),
    #[error("rule {rule} is not valid at {place}: {text}")]
    InvalidRule { rule: String, place: String, text: String },
    #[error("the log cannot be reached, so nothing can be decided")]
    AxiomUnavailable,
}

#[cfg(test)]
mod tests;
