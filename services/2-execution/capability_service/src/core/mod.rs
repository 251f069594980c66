//! Pure part of the service: what is granted, and what may be added to it or taken away. `now` and entropy are arguments.

mod error;
mod holdings;
mod plan;

pub use error::CapabilityError;
pub use holdings::{Filter, Granted, Holdings};
pub use plan::{OBJECT_ID_BYTES_MAX, REASON_BYTES_MAX, Revoker, Wish, check_revoke, plan_grant};
