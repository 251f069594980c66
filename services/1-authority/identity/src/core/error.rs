use base::{IdentityId, KeyPathError, Sequence, TokenId, limits::NAME_BYTES_MAX};
use chain::payload::identity::{IdentityStatus, IdentityType};
use kit::token::TokenError;
use thiserror::Error;

/// Why a request about identities was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    #[error("no identity {0}")]
    NotFound(IdentityId),
    #[error("no token {0} that has not expired")]
    TokenNotFound(TokenId),
    #[error(
        "a name has 1 to {NAME_BYTES_MAX} bytes of [A-Za-z0-9_.-], starts and ends with a letter or digit, and has no \
         two dots in a row: {0:?}"
    )]
    Name(String),
    #[error("the name {0:?} is taken")]
    NameTaken(String),
    #[error("the key path is refused: {0}")]
    KeyPath(#[from] KeyPathError),
    #[error("a chosen key path must be below the parent's")]
    NotBelowParent,
    #[error("the key path, or its key, belongs to another identity")]
    KeyTaken,
    #[error("a {0:?} cannot be the parent of a {1:?}")]
    ParentType(IdentityType, IdentityType),
    #[error("identity {0} is suspended or revoked")]
    NotActive(IdentityId),
    #[error("an identity that is {0:?} cannot become {1:?}")]
    StatusChange(IdentityStatus, IdentityStatus),
    #[error("the reason has more than {limit} bytes")]
    Reason { limit: usize },
    #[error("the system's root identity cannot be suspended or revoked")]
    Root,
    #[error("keys gave no public key: {0}")]
    Keys(String),
    #[error(transparent)]
    Act(#[from] ActFailure),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("axiom time is unknown, for nothing is heard from the log; ask again")]
    TimeUnknown,
    #[error("{0} is the limit; nothing more is accepted for now")]
    Busy(usize),
}

/// How an act ended without an entry. The caller is told no more than the decision's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ActFailure {
    #[error("policy refused; see decision {0}")]
    Denied(Sequence),
    #[error("policy or the log is not available, and nothing was changed")]
    NotCommitted,
}
