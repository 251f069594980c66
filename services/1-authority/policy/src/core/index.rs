//! Finds all rules that a request may match: requestor first, then resource, then the kind of action.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use super::anchor::{Actions, Anchors, keys_of_requestor, keys_of_resource};
use super::identities::Principal;
use chain::payload::policy::{ActionKind, ResourceRef};

/// Keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        // The table takes its bucket from the low bits and its tag from the high ones.
        self.0 = key.rotate_right(3);
    }
}

type Table<V> = HashMap<u64, V, BuildHasherDefault<AsIs>>;

#[derive(Clone, Copy, Debug)]
struct Posting {
    actions: Actions,
    slot: u32,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    by_identity: Table<Table<Vec<Posting>>>,
}

impl Index {
    pub(super) fn insert(&mut self, slot: u32, anchors: &Anchors) {
        if anchors.actions == 0 {
            return;
        }
        for identity in anchors.identity_keys() {
            let by_resource = self.by_identity.entry(*identity).or_default();
            for resource in anchors.resource_keys() {
                by_resource.entry(*resource).or_default().push(Posting { actions: anchors.actions, slot });
            }
        }
    }

    pub(super) fn remove(&mut self, slot: u32, anchors: &Anchors) {
        for identity in anchors.identity_keys() {
            let Some(by_resource) = self.by_identity.get_mut(identity) else { continue };
            for resource in anchors.resource_keys() {
                if let Some(postings) = by_resource.get_mut(resource) {
                    postings.retain(|posting| posting.slot != slot);
                    if postings.is_empty() {
                        by_resource.remove(resource);
                    }
                }
            }
            if by_resource.is_empty() {
                self.by_identity.remove(identity);
            }
        }
    }

    /// Slots of every rule that is not certainly false, in no order, some of them more than once.
    pub(super) fn candidates(
        &self,
        requestor: &Principal,
        kind: ActionKind,
        resource: &ResourceRef,
        mut found: impl FnMut(u32),
    ) {
        let action: Actions = 1 << kind as u32;
        let resources = keys_of_resource(resource);
        for identity in keys_of_requestor(requestor).as_slice() {
            let Some(by_resource) = self.by_identity.get(identity) else { continue };
            for key in resources.as_slice() {
                let postings = by_resource.get(key).map_or(&[][..], Vec::as_slice);
                postings.iter().filter(|posting| posting.actions & action != 0).for_each(|p| found(p.slot));
            }
        }
    }
}
