//! Finds all rules that a request may match: by requestor and resource, then by the kind of action.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use super::anchor::{Actions, Anchors, is_group, keys_of_requestor, keys_of_resource};
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

/// One table for all pairs of a requestor's and a resource's key, so that a look-up touches little memory, and for each
/// requestor's key which places of a resource have pairs with it, so that few are looked up.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// A place that is no longer in use stays marked: it costs a look-up that finds nothing.
    places: Table<u64>,
    pairs: Table<Postings>,
    /// Some rule names a group, or once did.
    with_groups: bool,
}

/// Most pairs have one rule.
#[derive(Clone, Debug)]
enum Postings {
    One(Posting),
    Many(Vec<Posting>),
}

impl Postings {
    fn as_slice(&self) -> &[Posting] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

fn pair(identity: u64, resource: u64) -> u64 {
    (identity.rotate_left(31) ^ resource).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Index {
    pub(super) fn insert(&mut self, slot: u32, anchors: &Anchors) {
        if anchors.actions == 0 {
            return;
        }
        let posting = Posting { actions: anchors.actions, slot };
        for identity in anchors.identity_keys() {
            self.with_groups |= is_group(*identity);
            for resource in anchors.resource_keys() {
                *self.places.entry(*identity).or_default() |= resource.place;
                self.pairs
                    .entry(pair(*identity, resource.key))
                    .and_modify(|postings| match postings {
                        Postings::One(one) => *postings = Postings::Many(vec![*one, posting]),
                        Postings::Many(many) => many.push(posting),
                    })
                    .or_insert(Postings::One(posting));
            }
        }
    }

    pub(super) fn remove(&mut self, slot: u32, anchors: &Anchors) {
        for identity in anchors.identity_keys() {
            for resource in anchors.resource_keys() {
                let key = pair(*identity, resource.key);
                let is_empty = match self.pairs.get_mut(&key) {
                    None => false,
                    Some(Postings::One(one)) => one.slot == slot,
                    Some(Postings::Many(many)) => {
                        many.retain(|posting| posting.slot != slot);
                        many.is_empty()
                    }
                };
                if is_empty {
                    self.pairs.remove(&key);
                }
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
        for identity in keys_of_requestor(requestor, self.with_groups).as_slice() {
            let Some(places) = self.places.get(identity) else { continue };
            for key in resources.as_slice().iter().filter(|key| key.place & places != 0) {
                let Some(postings) = self.pairs.get(&pair(*identity, key.key)) else { continue };
                let fitting = postings.as_slice().iter().filter(|posting| posting.actions & action != 0);
                fitting.for_each(|posting| found(posting.slot));
            }
        }
    }
}
