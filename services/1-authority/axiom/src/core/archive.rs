//! What was decided to be taken out of the log and is not closed by a receipt: one at a time.

use base::{AxiomRef, Sequence};
use chain::payload::{Payload, log::LogArchive};
use minicbor::{Decode, Encode};

use super::reply::{RejectionReason, Source};

/// Decided, and neither carried out nor given up.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct OpenArchive {
    /// The entry that decided it.
    #[n(0)]
    pub entry: AxiomRef,
    #[n(1)]
    pub act: LogArchive,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Archive(Option<OpenArchive>);

impl Archive {
    pub(super) const fn resume(open: Option<OpenArchive>) -> Self {
        Self(open)
    }

    pub(super) const fn open(&self) -> Option<&OpenArchive> {
        self.0.as_ref()
    }

    /// `next` is the sequence that the entry would get.
    pub(super) fn check(
        &self,
        payload: &Payload,
        source: Source,
        next: Sequence,
    ) -> Result<(), (RejectionReason, String)> {
        let conflict = |text: String| Err((RejectionReason::InvalidPayload, text));
        if let Payload::Receipt(receipt) = payload
            && source != Source::Own
            && self.0.as_ref().is_some_and(|open| open.entry == receipt.body.axiom_entry)
        {
            return conflict("only axiom says whether the log was archived".to_owned());
        }
        let Payload::LogArchive(entry) = payload else { return Ok(()) };
        if let Some(open) = &self.0 {
            return conflict(format!(
                "entry {} archives the log already, and has no receipt yet",
                open.entry
            ));
        }
        let last = entry.body.last.sequence;
        if last >= next || entry.body.from > last {
            return conflict(format!("entries {} to {last} cannot be archived", entry.body.from));
        }
        Ok(())
    }

    pub(super) fn apply(&mut self, entry: AxiomRef, payload: &Payload) {
        match payload {
            Payload::LogArchive(act) => self.0 = Some(OpenArchive { entry, act: act.body.clone() }),
            Payload::Receipt(receipt) => {
                self.0.take_if(|open| open.entry == receipt.body.axiom_entry);
            }
            _ => {}
        }
    }
}
