use base::{CredentialId, IdentityId, KeyPathError, Sequence, TokenId, limits::NAME_BYTES_MAX};
use chain::payload::identity::{IdentityStatus, IdentityType};
use kit::token::{SCOPE_PATTERN_BYTES_MAX, TokenError};
use thiserror::Error;

use super::PERMISSIONS_MAX;

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
    #[error("no credential {0} that is not revoked")]
    CredentialNotFound(CredentialId),
    #[error("a credential's name has at most {NAME_BYTES_MAX} bytes and no control characters")]
    CredentialName,
    #[error(
        "an API key has 1 to {PERMISSIONS_MAX} permissions, each with a resource pattern of 1 to {SCOPE_PATTERN_BYTES_MAX} bytes"
    )]
    Permissions,
    #[error("a token makes no credential that permits more, or lives longer, than what it was given for")]
    WiderThanToken,
    #[error("the scope asked for is wider than what the credential permits")]
    WiderThanCredential,
    #[error("the credential's permissions are no single scope: ask for actions and resources")]
    ScopeUnclear,
    #[error(
        "a passkey, and nothing else, is challenged for a page: `http://localhost`, with or without a port"
    )]
    Origin,
    #[error("the passkey is not taken: {0}")]
    Registration(&'static str),
    #[error("a passkey with this id was added before")]
    PasskeyKnown,
    #[error("the authenticator has not verified who uses it")]
    UserNotVerified,
    #[error("the passkey answered for another page")]
    OtherPage,
    #[error("the passkey's counter did not advance: there may be a copy of it; revoke it")]
    PasskeyCopied,
    #[error("the challenge was not issued here for this, or was used before")]
    ChallengeUnknown,
    #[error("the challenge has expired")]
    ChallengeExpired,
    #[error("the proof does not fit the credential and the challenge")]
    ProofRefused,
    #[error("the credential has expired")]
    CredentialExpired,
    #[error("the recovery key was used before")]
    RecoveryKeyUsed,
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

impl IdentityError {
    /// Refusals that say something about who tried, and are recorded (IDN-44).
    pub(super) const fn is_failed_authentication(&self) -> bool {
        matches!(
            self,
            Self::ChallengeUnknown
                | Self::ChallengeExpired
                | Self::ProofRefused
                | Self::UserNotVerified
                | Self::OtherPage
                | Self::PasskeyCopied
                | Self::CredentialExpired
                | Self::RecoveryKeyUsed
                | Self::NotActive(_)
                | Self::WiderThanCredential
        )
    }
}

/// How an act ended without an entry. The caller is told no more than the decision's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ActFailure {
    #[error("policy refused; see decision {0}")]
    Denied(Sequence),
    #[error("policy or the log is not available, and nothing was changed")]
    NotCommitted,
}
