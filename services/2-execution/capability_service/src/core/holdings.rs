//! The live capabilities, as the log tells them.

use std::collections::{BTreeMap, BTreeSet};

use base::{AxiomRef, CapabilityId, IdentityId};
use chain::payload::{
    Payload,
    capability::{CapabilityGrant, Resource},
};

/// A capability and the entry that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    pub grant: CapabilityGrant,
    pub created_at: AxiomRef,
}

/// What a list selects; an empty filter selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub holder: Option<IdentityId>,
    pub resource: Option<Resource>,
}

/// The fold. Two folds of one log are equal (CAP-37).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    by_id: BTreeMap<CapabilityId, Granted>,
    by_holder: BTreeMap<IdentityId, BTreeSet<CapabilityId>>,
    children: BTreeMap<CapabilityId, BTreeSet<CapabilityId>>,
    ignored: u64,
}

impl Holdings {
    /// Folds one committed entry, in order. What contradicts the fold changes nothing and is counted.
    pub fn apply(&mut self, at: AxiomRef, payload: &Payload) {
        let fits = match payload {
            Payload::Genesis(genesis) => {
                genesis.body.initial_capabilities.iter().all(|grant| self.grant(at, grant))
            }
            Payload::CapabilityGrant(grant) => self.grant(at, &grant.body),
            Payload::CapabilityRevoke(revoke) => self.revoke(revoke.body.capability),
            _ => true,
        };
        self.ignored = self.ignored.saturating_add(u64::from(!fits));
    }

    /// One whose parent is gone, or that permits more than its parent, gives nothing (CAP-26).
    fn grant(&mut self, created_at: AxiomRef, grant: &CapabilityGrant) -> bool {
        let id = grant.capability_id;
        if self.by_id.contains_key(&id) {
            return false;
        }
        if let Some(parent) = grant.parent {
            let fits = |source: &Granted| {
                source.grant.permissions.contains(grant.permissions)
                    && source.grant.resource == grant.resource
            };
            if !self.by_id.get(&parent).is_some_and(fits) {
                return false;
            }
            self.children.entry(parent).or_default().insert(id);
        }
        self.by_holder.entry(grant.grantee).or_default().insert(id);
        self.by_id.insert(id, Granted { grant: grant.clone(), created_at });
        true
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

    /// In order of id.
    pub fn list<'a>(&'a self, filter: &'a Filter) -> Box<dyn Iterator<Item = &'a Granted> + 'a> {
        let selects = |granted: &&Granted| {
            filter.resource.as_ref().is_none_or(|resource| *resource == granted.grant.resource)
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
