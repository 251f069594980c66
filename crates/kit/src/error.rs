//! Errors name the guilty side, once for gRPC and once for HTTP.

use base::{IdentityId, Sequence};
use contracts::common::v1::{ErrorInfo, Guilty as WireGuilty};
use prost::Message;
use thiserror::Error;
use tonic::{Code, Status, metadata::MetadataValue};

use crate::{table::Right, token::TokenError};

/// Metadata of every failed call.
pub const ERROR_METADATA: &str = "bailiwick-error-bin";
/// Bytes of an error's text as sent; longer texts are cut.
pub(crate) const ERROR_TEXT_BYTES_MAX: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guilty {
    /// The service said no.
    Refused,
    /// The caller broke the protocol.
    Misuse,
    /// The service, or something that it needs, is not there.
    Gone,
}

/// Whether the same call, unchanged, may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    Never,
    /// After so many milliseconds; 0 if nobody can tell.
    After(u32),
}

/// What a service's error enum must answer, so that it is mapped once.
pub trait IntoRefusal: std::error::Error {
    /// The contract that refuses: `bailiwick.keys.v1`.
    const DOMAIN: &'static str;

    /// Stable name, as the contract lists it.
    fn reason(&self) -> &'static str;

    fn guilty(&self) -> Guilty;

    fn retry(&self) -> Retry {
        Retry::Never
    }

    /// The entry that records the refusal.
    fn refusal(&self) -> Option<Sequence> {
        None
    }

    fn code(&self) -> Code {
        match self.guilty() {
            Guilty::Refused => Code::FailedPrecondition,
            Guilty::Misuse => Code::InvalidArgument,
            Guilty::Gone => Code::Unavailable,
        }
    }

    fn to_status(&self) -> Status {
        let (retry, retry_after_ms) = match self.retry() {
            Retry::Never => (false, 0),
            Retry::After(ms) => (true, ms),
        };
        let info = ErrorInfo {
            reason: self.reason().to_owned(),
            domain: Self::DOMAIN.to_owned(),
            guilty: match self.guilty() {
                Guilty::Refused => WireGuilty::Refused,
                Guilty::Misuse => WireGuilty::Misuse,
                Guilty::Gone => WireGuilty::Gone,
            } as i32,
            retry,
            retry_after_ms,
            refusal: self.refusal().map_or(0, |sequence| sequence.0),
        };
        with_info(self.code(), &self.to_string(), &info)
    }
}

fn with_info(code: Code, text: &str, info: &ErrorInfo) -> Status {
    let mut cut = text.len().min(ERROR_TEXT_BYTES_MAX);
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    let mut status = Status::new(code, text.get(..cut).unwrap_or_default());
    status.metadata_mut().insert_bin(ERROR_METADATA, MetadataValue::from_bytes(&info.encode_to_vec()));
    status
}

/// The `ErrorInfo` that a failed call carries.
#[must_use]
pub fn error_info(status: &Status) -> Option<ErrorInfo> {
    let bytes = status.metadata().get_bin(ERROR_METADATA)?.to_bytes().ok()?;
    ErrorInfo::decode(bytes).ok()
}

/// A failed call as its caller sees it. `Gone` is retried only where the contract says so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    #[error("refused, {reason}: {text}")]
    Refused { reason: String, text: String, refusal: Option<Sequence>, retry: Retry },
    #[error("called wrongly, {reason}: {text}")]
    Misuse { reason: String, text: String },
    #[error("gone, {reason}: {text}")]
    Gone { reason: String, text: String, retry: Retry },
}

impl CallError {
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused { reason, .. } | Self::Misuse { reason, .. } | Self::Gone { reason, .. } => reason,
        }
    }

    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Refused { retry, .. } | Self::Gone { retry, .. } => *retry,
            Self::Misuse { .. } => Retry::Never,
        }
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let text = status.message().to_owned();
        let Some(info) = error_info(&status) else {
            return without_info(status.code(), text);
        };
        let retry = if info.retry { Retry::After(info.retry_after_ms) } else { Retry::Never };
        let reason = info.reason;
        match WireGuilty::try_from(info.guilty) {
            Ok(WireGuilty::Misuse) => Self::Misuse { reason, text },
            Ok(WireGuilty::Gone) => Self::Gone { reason, text, retry },
            _ => {
                let refusal = (info.refusal != 0).then_some(Sequence(info.refusal));
                Self::Refused { reason, text, refusal, retry }
            }
        }
    }
}

/// The transport failed, or the peer is not one of ours.
fn without_info(code: Code, text: String) -> CallError {
    let reason = format!("{code:?}");
    match code {
        Code::Unavailable => CallError::Gone { reason, text, retry: Retry::After(0) },
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Unknown
        | Code::Internal
        | Code::Aborted
        | Code::DataLoss => CallError::Gone { reason, text, retry: Retry::Never },
        Code::InvalidArgument | Code::Unimplemented | Code::OutOfRange => CallError::Misuse { reason, text },
        _ => CallError::Refused { reason, text, refusal: None, retry: Retry::Never },
    }
}

/// What the kit itself answers before a handler can run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KitError {
    #[error("no complete operation context: {0}")]
    EnvelopeInvalid(String),
    #[error("{service} has not started yet; ask again later")]
    NotReady { service: &'static str },
    #[error("{service} is draining and takes no new work; ask again after its restart")]
    Draining { service: &'static str },
    #[error("{what} is full at {limit}; ask again in {retry_after_ms} ms")]
    Busy { what: &'static str, limit: usize, retry_after_ms: u32 },
    #[error("there is no operation {0}")]
    UnknownOperation(String),
    #[error("user {0:?} is not the owner of this node; run this as the owner or as root")]
    NotOwner(Option<u32>),
    #[error("{client} may not call {operation}")]
    CallerNotAllowed { client: String, operation: &'static str },
    #[error("the context states capability {stated:?}, {operation} needs {needed:?}")]
    CapabilityMismatch { stated: String, needed: &'static str, operation: &'static str },
    #[error(
        "{client} holds no capability {capability_type} with the permission {right}; its manifest names what it is given"
    )]
    CapabilityNotHeld { client: String, capability_type: String, right: Right },
    #[error("nothing was heard from the log, so nobody's rights are known here; ask again")]
    LogUnheard,
    #[error("the request's body is malformed: {0}")]
    MalformedBody(String),
    #[error("a message has more than {limit} bytes")]
    MessageTooLarge { limit: usize },
    #[error("no answer within {limit_ms} ms")]
    TooSlow { limit_ms: u64 },
    #[error("the log has not reached {wanted} here, only {folded}; ask again")]
    Behind { wanted: Sequence, folded: Sequence },
    #[error("a token is needed for this on the admin socket; ask the identity service for one")]
    TokenRequired,
    #[error("{0}")]
    TokenRefused(TokenError),
    #[error("no identity is known for the channel {0:?}")]
    NobodyThere(String),
    #[error("identity {0} is suspended or revoked")]
    NotActive(IdentityId),
    #[error("the handler ended without an answer")]
    HandlerDied,
}

/// Milliseconds after which a service that is not serving may be asked again.
const NOT_READY_RETRY_MS: u32 = 500;

impl IntoRefusal for KitError {
    const DOMAIN: &'static str = "bailiwick.kit";

    fn reason(&self) -> &'static str {
        match self {
            Self::EnvelopeInvalid(_) => "envelope_invalid",
            Self::NotReady { .. } => "ERR_SVC_SYS_NOT_READY",
            Self::Draining { .. } => "ERR_SVC_SYS_DRAINING",
            Self::Busy { .. } => "Busy",
            Self::UnknownOperation(_) => "UnknownOperation",
            Self::TokenRequired => "auth_required",
            Self::NotOwner(_) | Self::TokenRefused(_) => "auth_invalid",
            Self::CallerNotAllowed { .. }
            | Self::CapabilityMismatch { .. }
            | Self::CapabilityNotHeld { .. }
            | Self::NobodyThere(_)
            | Self::NotActive(_) => "acl_denied",
            Self::MalformedBody(_) | Self::MessageTooLarge { .. } => "object_invalid",
            Self::TooSlow { .. } => "DeadlineExceeded",
            Self::Behind { .. } | Self::LogUnheard => "Unavailable",
            Self::HandlerDied => "internal_error",
        }
    }

    fn guilty(&self) -> Guilty {
        match self {
            Self::EnvelopeInvalid(_)
            | Self::UnknownOperation(_)
            | Self::MalformedBody(_)
            | Self::CapabilityMismatch { .. }
            | Self::MessageTooLarge { .. } => Guilty::Misuse,
            Self::NotOwner(_)
            | Self::TokenRequired
            | Self::TokenRefused(_)
            | Self::NobodyThere(_)
            | Self::NotActive(_)
            | Self::CallerNotAllowed { .. }
            | Self::CapabilityNotHeld { .. }
            | Self::Busy { .. } => Guilty::Refused,
            Self::NotReady { .. }
            | Self::Draining { .. }
            | Self::TooSlow { .. }
            | Self::Behind { .. }
            | Self::LogUnheard
            | Self::HandlerDied => Guilty::Gone,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::NotReady { .. } | Self::Draining { .. } | Self::LogUnheard => {
                Retry::After(NOT_READY_RETRY_MS)
            }
            Self::Busy { retry_after_ms, .. } => Retry::After(*retry_after_ms),
            Self::Behind { .. } => Retry::After(10),
            _ => Retry::Never,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::UnknownOperation(_) => Code::Unimplemented,
            Self::NotOwner(_) | Self::TokenRequired | Self::TokenRefused(_) => Code::Unauthenticated,
            Self::CallerNotAllowed { .. }
            | Self::CapabilityMismatch { .. }
            | Self::CapabilityNotHeld { .. }
            | Self::NobodyThere(_)
            | Self::NotActive(_) => Code::PermissionDenied,
            Self::Busy { .. } | Self::MessageTooLarge { .. } => Code::ResourceExhausted,
            Self::TooSlow { .. } => Code::DeadlineExceeded,
            Self::HandlerDied => Code::Internal,
            Self::EnvelopeInvalid(_) | Self::MalformedBody(_) => Code::InvalidArgument,
            Self::NotReady { .. } | Self::Draining { .. } | Self::Behind { .. } | Self::LogUnheard => {
                Code::Unavailable
            }
        }
    }
}

impl From<KitError> for Status {
    fn from(error: KitError) -> Self {
        error.to_status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Error)]
    enum TestError {
        #[error("{0}")]
        Denied(String),
        #[error("path is wrong")]
        Path,
        #[error("boundary is away")]
        Away,
    }

    impl IntoRefusal for TestError {
        const DOMAIN: &'static str = "bailiwick.keys.v1";

        fn reason(&self) -> &'static str {
            match self {
                Self::Denied(_) => "PolicyDenied",
                Self::Path => "InvalidPath",
                Self::Away => "CryptoFailure",
            }
        }

        fn guilty(&self) -> Guilty {
            match self {
                Self::Denied(_) => Guilty::Refused,
                Self::Path => Guilty::Misuse,
                Self::Away => Guilty::Gone,
            }
        }

        fn retry(&self) -> Retry {
            if matches!(self, Self::Away) { Retry::After(7) } else { Retry::Never }
        }

        fn refusal(&self) -> Option<Sequence> {
            matches!(self, Self::Denied(_)).then_some(Sequence(41))
        }
    }

    #[test]
    fn the_guilty_side_survives_the_wire() {
        let call = |error: TestError| CallError::from(error.to_status());
        assert_eq!(
            call(TestError::Denied("no".to_owned())),
            CallError::Refused {
                reason: "PolicyDenied".to_owned(),
                text: "no".to_owned(),
                refusal: Some(Sequence(41)),
                retry: Retry::Never
            }
        );
        assert_eq!(
            call(TestError::Path),
            CallError::Misuse { reason: "InvalidPath".to_owned(), text: "path is wrong".to_owned() }
        );
        assert_eq!(
            call(TestError::Away),
            CallError::Gone {
                reason: "CryptoFailure".to_owned(),
                text: "boundary is away".to_owned(),
                retry: Retry::After(7)
            }
        );
        assert_eq!(error_info(&TestError::Path.to_status()).unwrap().domain, "bailiwick.keys.v1");
    }

    #[test]
    fn a_failure_without_info_is_never_a_refusal_by_accident() {
        for code in
            [Code::Unavailable, Code::Cancelled, Code::DeadlineExceeded, Code::Unknown, Code::Internal]
        {
            assert!(matches!(CallError::from(Status::new(code, "x")), CallError::Gone { .. }), "{code:?}");
        }
        assert!(matches!(CallError::from(Status::unimplemented("x")), CallError::Misuse { .. }));
        let mut status = Status::unavailable("x");
        status.metadata_mut().insert_bin(ERROR_METADATA, MetadataValue::from_bytes(&[0xff; 9]));
        assert!(matches!(CallError::from(status), CallError::Gone { .. }));
    }

    #[test]
    fn texts_are_cut_at_the_limit() {
        let text = |bytes: usize| TestError::Denied("x".repeat(bytes)).to_status().message().len();
        assert_eq!(text(ERROR_TEXT_BYTES_MAX), ERROR_TEXT_BYTES_MAX);
        assert_eq!(text(ERROR_TEXT_BYTES_MAX + 1), ERROR_TEXT_BYTES_MAX);
        let accents = TestError::Denied("é".repeat(ERROR_TEXT_BYTES_MAX)).to_status();
        assert!(accents.message().len() <= ERROR_TEXT_BYTES_MAX);
    }
}
