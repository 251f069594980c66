use base::{AxiomRef, Hash};
use chain::{Entry, EntryType};
use thiserror::Error;

/// Which append channel a unit came on. Nothing in the unit says so (AX-56).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Policy,
    /// Entry types 1 and 20 to 23, nothing else.
    Supervisor,
    /// Axiom itself, over no channel: receipts of what it does to the log.
    Own,
}

/// An entry as its author built it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    pub entry_type: EntryType,
    pub payload: Vec<u8>,
}

/// Entries that go into the log whole or not at all: a decision, a decision and its act, an act, or a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    pub entries: Vec<Draft>,
}

/// AX-40: exactly these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RejectionReason {
    InvalidPayload,
    MissingPolicyDecision,
    PolicyMismatch,
    PolicyDecisionExpired,
    InvalidPolicySignature,
    ResourceNotFound,
    DuplicateNonce,
    Backpressure,
}

impl RejectionReason {
    pub const ALL: [Self; 8] = [
        Self::InvalidPayload,
        Self::MissingPolicyDecision,
        Self::PolicyMismatch,
        Self::PolicyDecisionExpired,
        Self::InvalidPolicySignature,
        Self::ResourceNotFound,
        Self::DuplicateNonce,
        Self::Backpressure,
    ];
}

/// Why a unit was refused: the reason for programs, the text for people.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("entry {index} of the unit: {text}")]
pub struct Refusal {
    pub reason: RejectionReason,
    /// Which entry of the unit.
    pub index: usize,
    pub text: String,
}

/// AX-39. `Accepted` is to be sent after the group is durable; so is `Duplicate`, whose entry may be in the same group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitReply {
    Accepted(Vec<AxiomRef>),
    /// The unit's last entry is in the log already, byte for byte, under the same key (ACT-11).
    Duplicate(AxiomRef),
    Rejected(Refusal),
}

/// What became of a list of units: entries to write as one group, and a reply for each unit in its order (AX-43).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub entries: Vec<(Entry, Hash)>,
    pub replies: Vec<UnitReply>,
}
