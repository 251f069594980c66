//! What is decided about the log itself (decision 0025).

use base::{AxiomRef, IdentityId, Sequence};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Whole segments are taken out of the log. They were copied before; the receipt says whether they were taken.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct LogArchive {
    /// First entry of the first of these segments: the log's first, when this was asked.
    #[n(0)]
    pub from: Sequence,
    /// Last entry of the last of them.
    #[n(1)]
    pub last: AxiomRef,
    #[n(2)]
    pub segments: u64,
    /// The checkpoint below which they lie, as text, with the signatures of the log and of the witnesses.
    #[n(3)]
    pub checkpoint: String,
    /// Keys of the witnesses, 1 to 16.
    #[n(4)]
    pub witnesses: Vec<String>,
    /// Where the copies lie, at most 1 024 bytes.
    #[n(5)]
    pub place: String,
    #[n(6)]
    pub by: IdentityId,
}
