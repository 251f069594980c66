//! What the supervisor knows, as bytes for its snapshot.

use std::collections::{BTreeMap, BTreeSet};

use base::{
    AxiomTime, CapabilityId, IdentityId, KeyPath, ProcessId,
    cbor::{self, CborError},
};
use chain::payload::capability::Resource;
use minicbor::{Decode, Encode};

use super::{Held, State};

/// Of what these bytes mean: a fold that changes has another.
pub(super) const FOLD_VERSION: u32 = 1;

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct Saved {
    #[n(0)]
    identities: BTreeMap<KeyPath, IdentityId>,
    /// Of each holder in the order of the log.
    #[n(1)]
    capabilities: BTreeMap<IdentityId, Vec<Held>>,
    #[n(2)]
    grants: BTreeMap<CapabilityId, IdentityId>,
    #[n(3)]
    last_starts: BTreeMap<String, AxiomTime>,
    #[n(4)]
    withdrawn: BTreeSet<(IdentityId, Resource)>,
    #[n(5)]
    running: BTreeSet<ProcessId>,
}

impl State {
    /// Equal folds, equal bytes.
    pub(super) fn save(&self) -> Vec<u8> {
        let held = self.capabilities.iter().filter(|(_, held)| !held.is_empty());
        cbor::encode(&Saved {
            identities: self.identities.iter().map(|(path, id)| (path.clone(), *id)).collect(),
            capabilities: held.map(|(holder, held)| (*holder, held.clone())).collect(),
            grants: self.grants.iter().map(|(id, holder)| (*id, *holder)).collect(),
            last_starts: self.last_starts.iter().map(|(name, at)| (name.clone(), *at)).collect(),
            withdrawn: self.withdrawn.iter().cloned().collect(),
            running: self.running.clone(),
        })
    }

    pub(super) fn restore(bytes: &[u8]) -> Result<Self, CborError> {
        let saved: Saved = cbor::decode(bytes)?;
        Ok(Self {
            identities: saved.identities.into_iter().collect(),
            capabilities: saved.capabilities.into_iter().collect(),
            grants: saved.grants.into_iter().collect(),
            last_starts: saved.last_starts.into_iter().collect(),
            withdrawn: saved.withdrawn.into_iter().collect(),
            running: saved.running,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chain::payload::capability::{CapabilityGrant, ObjectType, Permissions};

    fn grant(number: u8, holder: u8) -> CapabilityGrant {
        CapabilityGrant {
            capability_id: CapabilityId([number; 16]),
            grantor: IdentityId([0; 32]),
            grantee: IdentityId([holder; 32]),
            resource: Resource { object_type: ObjectType::Service, object_id: format!("s{}", number % 3) },
            permissions: Permissions { read: true, ..Permissions::default() },
            restrictions: None,
            parent: None,
        }
    }

    /// Grants, revocations, starts and programs in a mixed order.
    fn step(state: &mut State, number: u8) {
        match number % 5 {
            0 | 1 => state.grant(&grant(number, number % 4)),
            2 => state.revoke(CapabilityId([number.saturating_sub(2); 16])),
            3 => state.start(&format!("s{}", number % 7), AxiomTime(u64::from(number))),
            _ => {
                state.running.insert(ProcessId(u64::from(number)));
                state.running.remove(&ProcessId(u64::from(number.saturating_sub(10))));
            }
        }
    }

    #[test]
    fn what_was_written_down_anywhere_goes_on_to_the_same_bytes() {
        let mut whole = State::default();
        (0..100).for_each(|number| step(&mut whole, number));
        for cut in 0..=100 {
            let mut begun = State::default();
            (0..cut).for_each(|number| step(&mut begun, number));
            let mut resumed = State::restore(&begun.save()).unwrap();
            (cut..100).for_each(|number| step(&mut resumed, number));
            assert_eq!(resumed.save(), whole.save(), "cut at {cut}");
        }
        let hash = base::Hash::of(&whole.save()).to_string();
        assert_eq!(
            hash, "blake3:c4ad857c5cf8ccc85441e4d2567285853eb08b6adaa60df9781249ba2dbc3f51",
            "a fold that changes has another FOLD_VERSION"
        );
        assert!(!whole.withdrawn.is_empty() && !whole.running.is_empty() && !whole.grants.is_empty());
    }
}
