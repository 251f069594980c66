//! What the supervisor knows, as bytes for its snapshot.

use std::collections::{BTreeMap, BTreeSet};

use base::{
    AxiomTime, CapabilityId, IdentityId, KeyPath, ProcessId,
    cbor::{self, CborError},
};
use chain::payload::capability::Resource;
use kit::images::ImageLedger;
use minicbor::{Decode, Encode};

use super::{Held, State};

/// Of what these bytes mean: a fold that changes has another.
pub(super) const FOLD_VERSION: u32 = 2;

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
    /// As the ledger writes itself.
    #[cbor(n(6), with = "minicbor::bytes")]
    images: Vec<u8>,
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
            images: self.images.save(),
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
            images: ImageLedger::restore(&saved.images)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{AxiomRef, EntryKey, Hash, Sequence, TreeId};
    use chain::payload::{
        Envelope, Payload,
        capability::{CapabilityGrant, ObjectType, Permissions},
        image::{ImageForm, ImageImport},
    };

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
        match number % 6 {
            0 | 1 => state.grant(&grant(number, number % 4)),
            2 => state.revoke(CapabilityId([number.saturating_sub(2); 16])),
            4 => {
                let name = format!("i{}", number % 5);
                let by = IdentityId([number % 3; 32]);
                let import = ImageImport {
                    name,
                    tree: TreeId([number % 7; 32]),
                    form: ImageForm::OciLayout,
                    manifest: None,
                    size_bytes: 1,
                    entries: 1,
                    by,
                    taken_from: None,
                };
                let envelope =
                    Envelope { submitter: by, key: EntryKey([0; 16]), authorization: None, body: import };
                let at = AxiomRef { sequence: Sequence(number.into()), hash: Hash::ZERO };
                let payload = Payload::ImageImport(Box::new(envelope));
                state.images.apply(at, AxiomTime(number.into()), &payload);
            }
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
        let hash = Hash::of(&whole.save()).to_string();
        assert_eq!(
            hash, "blake3:16c7eca17d80b3f4a0e487b5f000e8be07b76bfddea5aab5a0c42f986b80978c",
            "a fold that changes has another FOLD_VERSION"
        );
        assert!(!whole.withdrawn.is_empty() && !whole.running.is_empty() && !whole.grants.is_empty());
        assert!(whole.images.len() > 3);
    }
}
