//! The live capabilities, as the log tells them.

use std::collections::{BTreeMap, BTreeSet};

use base::{
    AxiomRef, AxiomTime, CapabilityId, IdentityId,
    cbor::{self, CborError},
};
use chain::payload::{
    Payload,
    capability::{CapabilityGrant, Resource},
};
use minicbor::{Decode, Encode};

/// Of what saved holdings mean: a fold that changes has another.
pub const FOLD_VERSION: u32 = 1;

/// A capability and the entry that made it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Granted {
    #[n(0)]
    pub grant: CapabilityGrant,
    #[n(1)]
    pub created_at: AxiomRef,
    /// Axiom time of that entry.
    #[n(2)]
    pub since: AxiomTime,
}

/// What a list selects; an empty filter selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub holder: Option<IdentityId>,
    pub resource: Option<Resource>,
    /// Only ids above this one.
    pub after: Option<CapabilityId>,
}

/// The fold. Two folds of one log are equal (CAP-37).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    by_id: BTreeMap<CapabilityId, Granted>,
    by_holder: BTreeMap<IdentityId, BTreeSet<CapabilityId>>,
    children: BTreeMap<CapabilityId, BTreeSet<CapabilityId>>,
    /// Live ones with a rate.
    rated: usize,
    /// Of the live ones' objects.
    name_bytes: usize,
    ignored: u64,
}

impl Holdings {
    /// Folds one committed entry, in order. What contradicts the fold changes nothing and is counted.
    pub fn apply(&mut self, at: AxiomRef, since: AxiomTime, payload: &Payload) {
        let fits = match payload {
            Payload::Genesis(genesis) => {
                genesis.body.initial_capabilities.iter().all(|grant| self.grant(at, since, grant))
            }
            Payload::CapabilityGrant(grant) => self.grant(at, since, &grant.body),
            Payload::CapabilityRevoke(revoke) => self.revoke(revoke.body.capability),
            _ => true,
        };
        self.ignored = self.ignored.saturating_add(u64::from(!fits));
    }

    /// One whose parent is gone, or that gives more than its parent, gives nothing (CAP-26).
    fn grant(&mut self, created_at: AxiomRef, since: AxiomTime, grant: &CapabilityGrant) -> bool {
        let id = grant.capability_id;
        if self.by_id.contains_key(&id) {
            return false;
        }
        let fits = |parent| self.by_id.get(&parent).is_some_and(|source| grant.is_within(&source.grant));
        if !grant.parent.is_none_or(fits) {
            return false;
        }
        self.keep(Granted { grant: grant.clone(), created_at, since });
        true
    }

    fn keep(&mut self, granted: Granted) {
        let grant = &granted.grant;
        let id = grant.capability_id;
        if let Some(parent) = grant.parent {
            self.children.entry(parent).or_default().insert(id);
        }
        self.by_holder.entry(grant.grantee).or_default().insert(id);
        self.rated += usize::from(has_rate(grant));
        self.name_bytes += grant.resource.object_id.len();
        self.by_id.insert(id, granted);
    }

    /// What is derived from the grants is left out. Equal folds, equal bytes.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        cbor::encode(&Saved { ignored: self.ignored, granted: self.by_id.values().cloned().collect() })
    }

    /// What `save` has written, as it was folded.
    pub fn restore(bytes: &[u8]) -> Result<Self, CborError> {
        let Saved { ignored, granted } = cbor::decode(bytes)?;
        let mut holdings = Self { ignored, ..Self::default() };
        granted.into_iter().for_each(|granted| holdings.keep(granted));
        Ok(holdings)
    }

    /// With everything derived from it; without recursion, for chains may be long.
    fn revoke(&mut self, root: CapabilityId) -> bool {
        let Some(parent) = self.by_id.get(&root).map(|granted| granted.grant.parent) else { return false };
        if let Some(siblings) = parent.and_then(|parent| self.children.get_mut(&parent)) {
            siblings.remove(&root);
        }
        let mut left = vec![root];
        while let Some(id) = left.pop() {
            left.extend(self.children.remove(&id).unwrap_or_default());
            let Some(Granted { grant, .. }) = self.by_id.remove(&id) else { continue };
            self.rated -= usize::from(has_rate(&grant));
            self.name_bytes -= grant.resource.object_id.len();
            if let Some(held) = self.by_holder.get_mut(&grant.grantee) {
                held.remove(&id);
                if held.is_empty() {
                    self.by_holder.remove(&grant.grantee);
                }
            }
        }
        true
    }

    #[must_use]
    pub fn get(&self, id: &CapabilityId) -> Option<&Granted> {
        self.by_id.get(id)
    }

    /// From a capability to the grant at its root; empty if there is none of this id. What is derived was granted later,
    /// so this ends.
    pub fn chain(&self, id: &CapabilityId) -> impl Iterator<Item = &Granted> {
        let parent = |granted: &&Granted| granted.grant.parent.and_then(|parent| self.by_id.get(&parent));
        std::iter::successors(self.by_id.get(id), parent)
    }

    /// Live capabilities with a rate.
    #[must_use]
    pub const fn rated(&self) -> usize {
        self.rated
    }

    /// Live capabilities.
    #[must_use]
    pub fn live(&self) -> usize {
        self.by_id.len()
    }

    /// Bytes of all live capabilities' object ids.
    #[must_use]
    pub const fn name_bytes(&self) -> usize {
        self.name_bytes
    }

    /// In order of id.
    pub fn list<'a>(&'a self, filter: &'a Filter) -> Box<dyn Iterator<Item = &'a Granted> + 'a> {
        let selects = |granted: &&Granted| {
            filter.resource.as_ref().is_none_or(|resource| *resource == granted.grant.resource)
                && filter.after.is_none_or(|after| granted.grant.capability_id > after)
        };
        match &filter.holder {
            Some(holder) => Box::new(self.held_by(holder).filter(selects)),
            None => Box::new(self.by_id.values().filter(selects)),
        }
    }

    pub(super) fn held_by(&self, holder: &IdentityId) -> impl Iterator<Item = &Granted> {
        self.by_holder.get(holder).into_iter().flatten().filter_map(|id| self.by_id.get(id))
    }

    /// Entries that contradicted the fold; other than 0 means that somebody wrote past this service.
    #[must_use]
    pub const fn ignored(&self) -> u64 {
        self.ignored
    }
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct Saved {
    #[n(0)]
    ignored: u64,
    /// In order of id.
    #[n(1)]
    granted: Vec<Granted>,
}

fn has_rate(grant: &CapabilityGrant) -> bool {
    grant.restrictions.as_ref().is_some_and(|restrictions| restrictions.rate_limit.is_some())
}
