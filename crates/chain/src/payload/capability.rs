//! Capabilities as the log records them.

use std::collections::BTreeMap;

use base::{AxiomTime, CapabilityId, DurationNs, IdentityId};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// CAP-21.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum ObjectType {
    #[n(0)]
    File,
    #[n(1)]
    Endpoint,
    #[n(2)]
    Process,
    #[n(3)]
    Memory,
    #[n(4)]
    Socket,
    #[n(5)]
    Device,
    #[n(6)]
    Service,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct Resource {
    #[n(0)]
    pub object_type: ObjectType,
    #[n(1)]
    pub object_id: String,
}

/// CAP-20.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
#[serde(default, deny_unknown_fields)]
pub struct Permissions {
    #[n(0)]
    pub read: bool,
    #[n(1)]
    pub write: bool,
    #[n(2)]
    pub execute: bool,
    #[n(3)]
    pub delegate: bool,
    #[n(4)]
    pub revoke: bool,
}

impl Permissions {
    /// True if nothing is asked for that `self` lacks.
    #[must_use]
    pub const fn contains(self, asked: Self) -> bool {
        (self.read || !asked.read)
            && (self.write || !asked.write)
            && (self.execute || !asked.execute)
            && (self.delegate || !asked.delegate)
            && (self.revoke || !asked.revoke)
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        !(self.read || self.write || self.execute || self.delegate || self.revoke)
    }
}

/// Nanoseconds of a day.
pub const DAY_NS: u64 = 86_400 * SECOND_NS;
const SECOND_NS: u64 = 1_000_000_000;

/// CAP-23.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
#[serde(default, deny_unknown_fields)]
pub struct Restrictions {
    #[n(0)]
    pub time: Option<TimeRestriction>,
    #[n(1)]
    pub rate_limit: Option<RateLimit>,
    #[n(2)]
    pub context: BTreeMap<String, String>,
}

impl Restrictions {
    /// True if whatever these permit the source's permit as well.
    #[must_use]
    pub fn is_within(&self, source: &Self) -> bool {
        let narrower =
            |own: &RateLimit, other: &RateLimit| own.count <= other.count && own.window >= other.window;
        source.time.as_ref().is_none_or(|time| self.time.as_ref().is_some_and(|own| own.is_within(time)))
            && source.rate_limit.is_none_or(|rate| self.rate_limit.is_some_and(|own| narrower(&own, &rate)))
            && source.context.iter().all(|(key, value)| self.context.get(key) == Some(value))
    }

    /// True if `own` restricts in all in which `theirs` does; none restricts in nothing.
    #[must_use]
    pub fn narrow(own: Option<&Self>, theirs: Option<&Self>) -> bool {
        match (own, theirs) {
            (_, None) => true,
            (None, Some(theirs)) => *theirs == Self::default(),
            (Some(own), Some(theirs)) => own.is_within(theirs),
        }
    }

    /// Limits that a look at the clock does not decide: somebody must count or compare.
    #[must_use]
    pub fn need_check(&self) -> bool {
        self.rate_limit.is_some() || !self.context.is_empty()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
#[serde(default, deny_unknown_fields)]
pub struct TimeRestriction {
    #[n(0)]
    pub not_before: Option<AxiomTime>,
    #[n(1)]
    pub not_after: Option<AxiomTime>,
    /// Seconds of the day in UTC, from and to.
    #[n(2)]
    pub time_of_day: Option<(u32, u32)>,
}

impl TimeRestriction {
    /// Whether it holds at this moment; the time of day is UTC by Axiom time, and goes over midnight if it ends before it
    /// begins.
    #[must_use]
    pub fn admits(&self, now: AxiomTime) -> bool {
        let in_day = self.time_of_day.is_none_or(|(from, to)| {
            let second = (now.0 % DAY_NS) / SECOND_NS;
            let (from, to) = (u64::from(from), u64::from(to));
            if from <= to { (from..to).contains(&second) } else { second >= from || second < to }
        });
        self.not_before.is_none_or(|start| now >= start)
            && self.not_after.is_none_or(|end| now < end)
            && in_day
    }

    fn is_within(&self, source: &Self) -> bool {
        source.not_before.is_none_or(|start| self.not_before.is_some_and(|own| own >= start))
            && source.not_after.is_none_or(|end| self.not_after.is_some_and(|own| own <= end))
            && (source.time_of_day.is_none() || self.time_of_day == source.time_of_day)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct RateLimit {
    #[n(0)]
    pub count: u32,
    #[n(1)]
    #[serde(rename = "window_ns")]
    pub window: DurationNs,
}

/// AX-30. A delegation is a grant with a parent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct CapabilityGrant {
    #[n(0)]
    pub capability_id: CapabilityId,
    #[n(1)]
    pub grantor: IdentityId,
    #[n(2)]
    pub grantee: IdentityId,
    #[n(3)]
    pub resource: Resource,
    #[n(4)]
    pub permissions: Permissions,
    #[n(5)]
    pub restrictions: Option<Restrictions>,
    #[n(6)]
    pub parent: Option<CapabilityId>,
}

impl CapabilityGrant {
    /// True if, derived from `source`, it gives nothing that the source does not (CAP-29). Every fold asks this.
    #[must_use]
    pub fn is_within(&self, source: &Self) -> bool {
        source.permissions.contains(self.permissions)
            && source.resource == self.resource
            && Restrictions::narrow(self.restrictions.as_ref(), source.restrictions.as_ref())
    }
}

/// Names only the root of what is taken back; everything derived from it falls with it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct CapabilityRevoke {
    #[n(0)]
    pub capability: CapabilityId,
    #[n(1)]
    pub by: IdentityId,
    #[n(2)]
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bits: u8) -> Permissions {
        let bit = |n: u8| bits >> n & 1 == 1;
        Permissions { read: bit(0), write: bit(1), execute: bit(2), delegate: bit(3), revoke: bit(4) }
    }

    fn restricted(change: impl FnOnce(&mut Restrictions)) -> Option<Restrictions> {
        let mut all = Restrictions {
            time: Some(TimeRestriction {
                not_before: Some(AxiomTime(10)),
                not_after: Some(AxiomTime(20)),
                time_of_day: Some((1, 2)),
            }),
            rate_limit: Some(RateLimit { count: 5, window: DurationNs(100) }),
            context: [("room".to_owned(), "1".to_owned())].into(),
        };
        change(&mut all);
        Some(all)
    }

    fn time(restrictions: &mut Restrictions) -> &mut TimeRestriction {
        restrictions.time.get_or_insert_default()
    }

    #[test]
    fn what_is_derived_is_limited_at_least_as_much() {
        let grant = |restrictions: Option<Restrictions>| CapabilityGrant {
            capability_id: CapabilityId([1; 16]),
            grantor: IdentityId([1; 32]),
            grantee: IdentityId([2; 32]),
            resource: Resource { object_type: ObjectType::File, object_id: "/a".to_owned() },
            permissions: of(1),
            restrictions,
            parent: None,
        };
        let source = grant(restricted(|_| ()));
        let within = |restrictions| grant(restrictions).is_within(&source);
        let rate = |count, window| Some(RateLimit { count, window: DurationNs(window) });
        for narrower in [
            restricted(|_| ()),
            restricted(|all| time(all).not_before = Some(AxiomTime(11))),
            restricted(|all| time(all).not_after = Some(AxiomTime(19))),
            restricted(|all| all.rate_limit = rate(4, 101)),
            restricted(|all| drop(all.context.insert("more".to_owned(), String::new()))),
        ] {
            assert!(within(narrower.clone()), "{narrower:?}");
        }
        for wider in [
            None,
            restricted(|all| all.time = None),
            restricted(|all| time(all).not_before = None),
            restricted(|all| time(all).not_before = Some(AxiomTime(9))),
            restricted(|all| time(all).not_after = None),
            restricted(|all| time(all).not_after = Some(AxiomTime(21))),
            restricted(|all| time(all).time_of_day = None),
            restricted(|all| time(all).time_of_day = Some((1, 3))),
            restricted(|all| all.rate_limit = None),
            restricted(|all| all.rate_limit = rate(6, 100)),
            restricted(|all| all.rate_limit = rate(5, 99)),
            restricted(|all| all.context.clear()),
            restricted(|all| drop(all.context.insert("room".to_owned(), "2".to_owned()))),
        ] {
            assert!(!within(wider.clone()), "{wider:?}");
        }
        let free = grant(None);
        assert!(free.is_within(&free) && source.is_within(&free));
        assert!(free.is_within(&grant(Some(Restrictions::default()))), "no limits, said in two ways");
        assert!(!CapabilityGrant { permissions: of(3), ..free.clone() }.is_within(&free));
        let resource = Resource { object_type: ObjectType::File, object_id: "/b".to_owned() };
        assert!(!CapabilityGrant { resource, ..free.clone() }.is_within(&free));
    }

    #[test]
    fn permissions_contain_what_asks_for_none_that_they_lack() {
        for have in 0..32 {
            assert_eq!(of(have).is_empty(), have == 0, "{:?}", of(have));
            for asked in 0..32 {
                let expected = have & asked == asked;
                assert_eq!(of(have).contains(of(asked)), expected, "{:?} {:?}", of(have), of(asked));
            }
        }
    }
}
