//! What may become an entry, and what the entries add up to. Pure: time, space and bytes are arguments.

mod archive;
mod capabilities;
mod clock;
mod decisions;
mod key_run;
mod keys;
mod phase;
mod reply;
mod saved;
mod sequencer;
mod state;

pub use archive::OpenArchive;
pub use capabilities::{Capabilities, CapabilityRecord};
pub use clock::{Clock, Reading};
pub use key_run::{KEY_BYTES, KeyRun, RUN_KEYS_MAX};
pub use keys::Past;
pub use phase::{Event, Phase};
pub use reply::{Batch, Draft, Refusal, RejectionReason, Source, Unit, UnitReply};
pub use saved::{FOLD_VERSION, ResumeError};
pub use sequencer::{GenesisError, Limits, Sequencer, UNIT_ENTRIES_MAX, genesis_entry};
pub use state::{ControlState, IdentityRecord, Pinned, RuleRecord, ServiceRecord, ServiceStatus};

#[cfg(test)]
mod tests;
