//! Refusals cannot be used to fill the log (DESIGN 2): so many a second and identity are recorded singly, the rest is counted.

use std::collections::HashMap;

use base::{AxiomTime, IdentityId};
use chain::payload::policy::PolicyRequest;

use super::limits::DENIALS_SINGLE_PER_S;

const SECOND_NS: u64 = 1_000_000_000;
/// Stands between the reason of a denial and the number of those that were only counted.
const COUNTED: &str = " [and refused as often: ";

/// The reason of a denial that stands for others as well.
#[must_use]
pub fn counted_reason(reason: &str, others: u64) -> String {
    if others == 0 { reason.to_owned() } else { format!("{reason}{COUNTED}{others}]") }
}

/// The reason without the number: what an evaluation gives.
#[must_use]
pub fn plain_reason(reason: &str) -> &str {
    reason.split_once(COUNTED).map_or(reason, |(plain, _)| plain)
}

#[derive(Clone, Debug)]
struct Second {
    number: u64,
    single: u32,
    /// Counted and not yet recorded.
    counted: u64,
    /// The last one that was only counted; recorded for all of them.
    sample: Option<PolicyRequest>,
}

/// By requestor; all unknown ones share one row, so that made-up ids take no memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Denials {
    by_requestor: HashMap<Option<IdentityId>, Second>,
}

pub(super) enum Note {
    /// Record it, with so many others in its reason.
    Single {
        others: u64,
    },
    Counted,
}

impl Denials {
    /// Nobody was refused in this second or the ones before it that are not over.
    pub(super) fn is_empty(&self) -> bool {
        self.by_requestor.is_empty()
    }

    pub(super) fn note(
        &mut self,
        requestor: Option<IdentityId>,
        request: &PolicyRequest,
        now: AxiomTime,
    ) -> Note {
        let number = now.0 / SECOND_NS;
        let fresh = Second { number, single: 0, counted: 0, sample: None };
        let second = self.by_requestor.entry(requestor).or_insert(fresh);
        if second.number != number {
            (second.number, second.single) = (number, 0);
        }
        if second.single < DENIALS_SINGLE_PER_S {
            second.single += 1;
            second.sample = None;
            return Note::Single { others: std::mem::take(&mut second.counted) };
        }
        second.counted = second.counted.saturating_add(1);
        second.sample = Some(request.clone());
        Note::Counted
    }

    /// Takes back a number that could not be recorded, for the next denial of this requestor.
    pub(super) fn carry(&mut self, requestor: Option<IdentityId>, counted: u64, now: AxiomTime) {
        let fresh = Second { number: now.0 / SECOND_NS, single: 0, counted: 0, sample: None };
        let second = self.by_requestor.entry(requestor).or_insert(fresh);
        second.counted = second.counted.saturating_add(counted);
    }

    /// What was only counted in seconds that are over: one request and how many others for each requestor.
    pub(super) fn due(&mut self, now: AxiomTime) -> Vec<(PolicyRequest, u64)> {
        let number = now.0 / SECOND_NS;
        let over = |second: &Second| second.number != number;
        let mut due: Vec<_> = Vec::new();
        for second in self.by_requestor.values_mut().filter(|second| over(second)) {
            if let Some(sample) = second.sample.take() {
                due.push((sample, std::mem::take(&mut second.counted).saturating_sub(1)));
            }
        }
        self.by_requestor.retain(|_, second| !over(second));
        due.sort_unstable_by_key(|(request, _)| (request.requestor, request.nonce));
        due
    }
}
