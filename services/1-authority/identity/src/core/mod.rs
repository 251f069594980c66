//! Pure part of the service: the registry as a fold of the log, and what may be added to it.

mod error;
mod machine;
mod names;
mod registry;

pub use error::{ActFailure, IdentityError};
pub use machine::{
    Act, CreateIdentityRequest, Effect, Event, IdentityCore, IssueTokenRequest, PENDING_MAX, Proposal, Reply,
    RequestId, UpdateStatusRequest,
};
pub use names::qualified_name;
pub use registry::{IDENTITIES_MAX, IdentityFilter, Registry, TOKENS_MAX};
