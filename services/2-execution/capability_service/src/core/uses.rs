//! Uses of rights that have a rate or a context: who may use one now, and what that leaves for the next.
//!
//! Nothing is written for a use, so nothing tells a new process what an earlier one has counted. It therefore takes every
//! rate of a right that is older than itself as used up, for one window from its own beginning: whoever ends the service
//! gains nothing by it (decision 0008).

use std::collections::{BTreeMap, VecDeque};

use base::{AxiomTime, CapabilityId};
use chain::payload::capability::{Permissions, RateLimit, Restrictions};

use super::{Granted, Holdings, RATED_MAX};

/// What is to be done with a right, and what its object's owner says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    pub permissions: Permissions,
    pub context: BTreeMap<String, String>,
}

/// Why a use is refused; of several capabilities the one that came closest says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    NotHeld,
    Time,
    Context,
    Rate,
}

/// Times of the uses that still count, by the capability whose rate they count against.
#[derive(Debug, Default)]
pub struct Uses {
    /// When this process began to count; none before: then no rate has room.
    began: Option<AxiomTime>,
    counted: BTreeMap<CapabilityId, VecDeque<AxiomTime>>,
}

impl Uses {
    /// Counting begins; later calls change nothing.
    pub fn begin(&mut self, now: AxiomTime) {
        self.began.get_or_insert(now);
    }

    /// Finds a capability among `held` that permits this now, and counts the use against every rate between it and its
    /// root: what was passed on uses up what its source had (CAP-29). A refusal counts nothing.
    pub fn spend(
        &mut self,
        holdings: &Holdings,
        held: &[CapabilityId],
        what: &Use,
        now: AxiomTime,
    ) -> Result<CapabilityId, Unfit> {
        let mut nearest = Unfit::NotHeld;
        let mut fitting: Vec<&Granted> = Vec::new();
        for granted in held.iter().filter_map(|id| holdings.get(id)) {
            match fits(granted, what, now) {
                Ok(()) => fitting.push(granted),
                Err(unfit) => nearest = nearest.max(unfit),
            }
        }
        // One without a rate costs nothing.
        fitting.sort_by_key(|granted| rate(granted).is_some());
        for granted in fitting {
            let id = granted.grant.capability_id;
            let rated = || holdings.chain(&id).filter_map(|link| rate(link).map(|rate| (link, rate)));
            if !rated().all(|(link, rate)| self.has_room(link, rate, now)) {
                nearest = nearest.max(Unfit::Rate);
                continue;
            }
            for (link, _) in rated() {
                self.counted.entry(link.grant.capability_id).or_default().push_back(now);
            }
            return Ok(id);
        }
        Err(nearest)
    }

    fn has_room(&mut self, granted: &Granted, rate: RateLimit, now: AxiomTime) -> bool {
        let Some(began) = self.began else { return false };
        if granted.since < began && now < began.saturating_add(rate.window.0) {
            return false;
        }
        let id = granted.grant.capability_id;
        let is_full = self.counted.len() >= RATED_MAX;
        let Some(times) = self.counted.get_mut(&id) else { return !is_full && rate.count > 0 };
        while times.front().is_some_and(|time| time.saturating_add(rate.window.0) <= now) {
            times.pop_front();
        }
        times.len() < rate.count as usize
    }

    /// After a revocation: what is gone is not counted any more.
    pub fn forget(&mut self, holdings: &Holdings) {
        self.counted.retain(|id, _| holdings.get(id).is_some());
    }
}

fn rate(granted: &Granted) -> Option<RateLimit> {
    granted.grant.restrictions.as_ref().and_then(|restrictions| restrictions.rate_limit)
}

fn fits(granted: &Granted, what: &Use, now: AxiomTime) -> Result<(), Unfit> {
    if what.permissions.is_empty() || !granted.grant.permissions.contains(what.permissions) {
        return Err(Unfit::NotHeld);
    }
    let Some(Restrictions { time, context, .. }) = &granted.grant.restrictions else { return Ok(()) };
    if !time.as_ref().is_none_or(|time| time.admits(now)) {
        return Err(Unfit::Time);
    }
    match context.iter().all(|(key, value)| what.context.get(key) == Some(value)) {
        true => Ok(()),
        false => Err(Unfit::Context),
    }
}

#[cfg(test)]
#[path = "uses_tests.rs"]
mod tests;
