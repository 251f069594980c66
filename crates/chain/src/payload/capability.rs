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
