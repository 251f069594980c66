//! Identity errors as callers see them.

use base::Sequence;
use kit::{Guilty, IntoRefusal, Retry, token::TokenError};
use tonic::{Code, Status};

use crate::core::{ActFailure, IdentityError};

/// When to ask again for what another process must give first.
const GONE_RETRY_MS: u32 = 500;
/// When to ask again after too many requests at once: about one group commit.
const BUSY_RETRY_MS: u32 = 10;

/// What a caller asked of a token, as against what a token that was shown lacks.
const fn is_misuse(error: &TokenError) -> bool {
    matches!(error, TokenError::Life | TokenError::Channel | TokenError::Scope(_) | TokenError::TooLarge)
}

impl IntoRefusal for IdentityError {
    const DOMAIN: &'static str = "bailiwick.identity.v1";

    fn reason(&self) -> &'static str {
        match self {
            Self::NotFound(_) | Self::TokenNotFound(_) => "NotFound",
            Self::Name(_) => "InvalidName",
            Self::NameTaken(_) => "NameTaken",
            Self::KeyPath(_) | Self::NotBelowParent => "InvalidKeyPath",
            Self::KeyTaken => "KeyTaken",
            Self::ParentType(..) => "InvalidParent",
            Self::NotActive(_) => "Suspended",
            Self::StatusChange(..) => "InvalidStatus",
            Self::Root => "Root",
            Self::CredentialNotFound(_) => "CredentialNotFound",
            Self::CredentialName | Self::Permissions | Self::ScopeUnclear => "InvalidCredential",
            Self::WiderThanToken | Self::WiderThanCredential => "ScopeExceeded",
            Self::Origin => "InvalidRequest",
            Self::Registration(_) => "InvalidCredential",
            Self::PasskeyKnown => "CredentialTaken",
            Self::ChallengeUnknown
            | Self::ChallengeExpired
            | Self::ProofRefused
            | Self::UserNotVerified
            | Self::OtherPage
            | Self::PasskeyCopied
            | Self::CredentialExpired
            | Self::RecoveryKeyUsed => "AuthenticationFailed",
            Self::Keys(_) => "KeysUnavailable",
            Self::Act(ActFailure::Denied(_)) => "PolicyDenied",
            Self::Act(ActFailure::NotCommitted) => "PolicyUnavailable",
            Self::Token(error) if is_misuse(error) => "InvalidRequest",
            Self::Token(_) => "InvalidToken",
            Self::Reason { .. } => "InvalidRequest",
            Self::TimeUnknown => "Unavailable",
            Self::Busy(_) => "Busy",
        }
    }

    fn guilty(&self) -> Guilty {
        match self {
            Self::Name(_) | Self::KeyPath(_) | Self::NotBelowParent | Self::Reason { .. } => Guilty::Misuse,
            Self::CredentialName | Self::Permissions | Self::ScopeUnclear => Guilty::Misuse,
            Self::Origin | Self::Registration(_) => Guilty::Misuse,
            Self::Token(error) if is_misuse(error) => Guilty::Misuse,
            Self::Keys(_) | Self::Act(ActFailure::NotCommitted) | Self::TimeUnknown => Guilty::Gone,
            _ => Guilty::Refused,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Keys(_) | Self::Act(ActFailure::NotCommitted) | Self::TimeUnknown => {
                Retry::After(GONE_RETRY_MS)
            }
            Self::Busy(_) => Retry::After(BUSY_RETRY_MS),
            _ => Retry::Never,
        }
    }

    fn refusal(&self) -> Option<Sequence> {
        match self {
            Self::Act(ActFailure::Denied(decision)) => Some(*decision),
            _ => None,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::NotFound(_) | Self::TokenNotFound(_) => Code::NotFound,
            Self::CredentialNotFound(_) => Code::NotFound,
            Self::WiderThanToken | Self::WiderThanCredential => Code::PermissionDenied,
            Self::ChallengeUnknown
            | Self::ChallengeExpired
            | Self::ProofRefused
            | Self::UserNotVerified
            | Self::OtherPage
            | Self::PasskeyCopied
            | Self::CredentialExpired
            | Self::RecoveryKeyUsed => Code::Unauthenticated,
            Self::NameTaken(_) | Self::KeyTaken | Self::PasskeyKnown => Code::AlreadyExists,
            Self::NotActive(_) | Self::Act(ActFailure::Denied(_)) => Code::PermissionDenied,
            Self::Token(error) if !is_misuse(error) => Code::Unauthenticated,
            Self::Busy(_) => Code::ResourceExhausted,
            _ => match self.guilty() {
                Guilty::Refused => Code::FailedPrecondition,
                Guilty::Misuse => Code::InvalidArgument,
                Guilty::Gone => Code::Unavailable,
            },
        }
    }
}

impl From<IdentityError> for Status {
    fn from(error: IdentityError) -> Self {
        error.to_status()
    }
}
