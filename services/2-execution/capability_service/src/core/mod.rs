//! Pure part of the service: what is granted, and what may be added to it or taken away. `now` and entropy are arguments.

mod error;
mod holdings;
mod plan;
mod uses;

pub use error::CapabilityError;
pub use holdings::{FOLD_VERSION, Filter, Granted, Holdings};
pub use plan::{
    CHAIN_LENGTH_MAX, CONTEXT_KEY_BYTES_MAX, CONTEXT_PAIRS_MAX, CONTEXT_VALUE_BYTES_MAX, Delegation,
    LIVE_MAX, NAME_BYTES_MAX, OBJECT_ID_BYTES_MAX, RATE_COUNT_MAX, RATE_WINDOW_NS_MAX, RATED_MAX,
    REASON_BYTES_MAX, Revoker, Wish, check_chain, check_context, check_revoke, plan_delegation, plan_grant,
};
pub use uses::{Unfit, Use, Uses};
