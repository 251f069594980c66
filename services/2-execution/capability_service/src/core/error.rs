use base::{CapabilityId, IdentityId};
use thiserror::Error;

use super::{CHAIN_LENGTH_MAX, LIVE_MAX, NAME_BYTES_MAX, OBJECT_ID_BYTES_MAX, RATED_MAX, REASON_BYTES_MAX};

/// Why a request about capabilities was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CapabilityError {
    #[error("no active identity {0}")]
    UnknownIdentity(IdentityId),
    /// Unknown, or none of the caller's business: the two cannot be told apart (CAP-33).
    #[error("no capability {0}")]
    NotFound(CapabilityId),
    /// Unknown, or another's: the two cannot be told apart (CAP-24, CAP-33).
    #[error("the caller holds no capability {0}")]
    NotHolder(CapabilityId),
    #[error("only its grantor, or a holder of the right to revoke on the same object, revokes {0}")]
    CannotRevoke(CapabilityId),
    #[error("an object id has 1 to {OBJECT_ID_BYTES_MAX} bytes without control characters, not {bytes}")]
    ObjectId { bytes: usize },
    #[error("a capability permits something: name at least one permission")]
    NoPermission,
    #[error("the restrictions are refused: {0}")]
    Restrictions(&'static str),
    #[error("the caller's own capability on this object may not be passed on")]
    CannotDelegate,
    #[error("more is asked for than the caller's own capability on this object permits")]
    CannotAmplify,
    #[error("a chain has at most {CHAIN_LENGTH_MAX} capabilities from its root on")]
    ChainLength,
    #[error("{RATED_MAX} capabilities with a rate are counted already; revoke some")]
    TooManyRates,
    #[error(
        "there are {LIVE_MAX} capabilities already, or their object ids have {NAME_BYTES_MAX} bytes; revoke some"
    )]
    Full,
    #[error("a reason has at most {REASON_BYTES_MAX} bytes, not {bytes}")]
    Reason { bytes: usize },
    #[error("axiom time is unknown, for nothing is heard from the log; ask again")]
    TimeUnknown,
    #[error("more than one message of capabilities matches; ask for one holder or one resource")]
    TooMany,
}
