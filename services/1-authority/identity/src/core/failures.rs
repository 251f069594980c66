//! Which failed authentications become an entry of their own. A stranger who tries must not fill the log.

use std::collections::BTreeMap;

use base::{AxiomTime, IdentityId};

/// Failures are counted in stretches of so many nanoseconds of Axiom time.
pub(crate) const FAILURE_WINDOW_NS: u64 = 60_000_000_000;
/// Entries of one identity in a stretch; the next one that is recorded says how many others there were.
pub(crate) const FAILURES_PER_IDENTITY_MAX: u32 = 5;
/// Entries of all identities together in a stretch.
pub(crate) const FAILURES_MAX: u32 = 60;

#[derive(Debug, Default)]
pub(super) struct Failures {
    began: AxiomTime,
    recorded: u32,
    /// Entries in this stretch, and failures that were only counted so far. No more rows than identities.
    of_identity: BTreeMap<IdentityId, (u32, u64)>,
}

impl Failures {
    /// How many others a new entry stands for, or None if this failure is only counted.
    pub(super) fn note(&mut self, now: AxiomTime, identity: IdentityId) -> Option<u64> {
        if now.since(self.began) >= FAILURE_WINDOW_NS {
            (self.began, self.recorded) = (now, 0);
            self.of_identity.retain(|_, (_, others)| *others > 0);
            self.of_identity.values_mut().for_each(|(recorded, _)| *recorded = 0);
        }
        let (recorded, others) = self.of_identity.entry(identity).or_default();
        if *recorded >= FAILURES_PER_IDENTITY_MAX || self.recorded >= FAILURES_MAX {
            *others = others.saturating_add(1);
            return None;
        }
        *recorded += 1;
        self.recorded += 1;
        Some(std::mem::take(others))
    }
}
