//! What may become an entry, and what the entries add up to. Pure: time, space and bytes are arguments.

mod capabilities;
mod clock;
mod decisions;
mod keys;
mod phase;
mod reply;
mod sequencer;
mod state;

pub use capabilities::{Capabilities, CapabilityRecord};
pub use clock::{Clock, Reading};
pub use phase::{Event, Phase};
pub use reply::{Batch, Draft, Refusal, RejectionReason, Source, Unit, UnitReply};
pub use sequencer::{GenesisError, Limits, Sequencer, UNIT_ENTRIES_MAX, genesis_entry};
pub use state::{ControlState, IdentityRecord, Pinned, RuleRecord, ServiceRecord, ServiceStatus};

#[cfg(test)]
mod tests;
