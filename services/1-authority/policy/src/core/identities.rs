//! Principals as the log tells them. A parent stands before its children, so the chain above an identity is fixed at its birth.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use base::{IdentityId, KeyPath, PublicKey, cbor};
use chain::payload::identity::{IdentityCreated, IdentityStatus, IdentityType};
use minicbor::{Decode, Encode};

use super::{digest::SetDigest, limits::IDENTITY_DEPTH_MAX};

/// What the engine knows of a principal.
#[derive(Clone, Debug)]
pub struct Principal {
    pub id: IdentityId,
    pub name: String,
    pub identity_type: IdentityType,
    pub parent: Option<IdentityId>,
    pub public_key: PublicKey,
    pub key_path: KeyPath,
    pub status: IdentityStatus,
    /// Itself, then its parents up to the root.
    pub lineage: Arc<[IdentityId]>,
    /// Its name's key in the index of rules, so that a decision need not read the name.
    pub(super) name_key: u64,
    /// False if a parent is not known or the chain is too long: whether it belongs to a group cannot be told.
    pub lineage_complete: bool,
}

/// What is hashed; the lineage follows from the parents.
#[derive(Encode)]
#[cbor(array)]
struct Item<'a> {
    #[n(0)]
    id: &'a IdentityId,
    #[n(1)]
    name: &'a str,
    #[n(2)]
    identity_type: IdentityType,
    #[n(3)]
    parent: Option<&'a IdentityId>,
    #[n(4)]
    public_key: &'a PublicKey,
    #[n(5)]
    key_path: &'a KeyPath,
    #[n(6)]
    status: IdentityStatus,
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct SavedPrincipal {
    #[n(0)]
    id: IdentityId,
    #[n(1)]
    name: String,
    #[n(2)]
    identity_type: IdentityType,
    #[n(3)]
    parent: Option<IdentityId>,
    #[n(4)]
    public_key: PublicKey,
    #[n(5)]
    key_path: KeyPath,
    #[n(6)]
    status: IdentityStatus,
    /// As it was at birth: a parent that came later changes nothing.
    #[n(7)]
    lineage: Vec<IdentityId>,
    #[n(8)]
    lineage_complete: bool,
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct SavedIdentities {
    /// In order of id.
    #[n(0)]
    principals: Vec<SavedPrincipal>,
    #[n(1)]
    by_key_path: BTreeMap<KeyPath, IdentityId>,
}

impl SavedIdentities {
    pub(super) fn restore(self) -> Identities {
        let mut identities =
            Identities { by_key_path: self.by_key_path.into_iter().collect(), ..Identities::default() };
        for saved in self.principals {
            let principal = Principal {
                id: saved.id,
                name_key: super::anchor::name_key(&saved.name),
                name: saved.name,
                identity_type: saved.identity_type,
                parent: saved.parent,
                public_key: saved.public_key,
                key_path: saved.key_path,
                status: saved.status,
                lineage: saved.lineage.into(),
                lineage_complete: saved.lineage_complete,
            };
            record(&mut identities.digest, &principal);
            identities.by_id.insert(principal.id, principal);
        }
        identities
    }
}

#[derive(Clone, Debug, Default)]
pub struct Identities {
    by_id: HashMap<IdentityId, Principal>,
    by_key_path: HashMap<KeyPath, IdentityId>,
    pub(super) digest: SetDigest,
}

impl Identities {
    #[must_use]
    pub fn get(&self, id: &IdentityId) -> Option<&Principal> {
        self.by_id.get(id)
    }

    /// In no order.
    pub fn iter(&self) -> impl Iterator<Item = &Principal> {
        self.by_id.values()
    }

    /// The first identity that was created with this key path.
    #[must_use]
    pub fn by_key_path(&self, path: &KeyPath) -> Option<&Principal> {
        self.by_id.get(self.by_key_path.get(path)?)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn save(&self) -> SavedIdentities {
        let saved = |p: &Principal| SavedPrincipal {
            id: p.id,
            name: p.name.clone(),
            identity_type: p.identity_type,
            parent: p.parent,
            public_key: p.public_key,
            key_path: p.key_path.clone(),
            status: p.status,
            lineage: p.lineage.to_vec(),
            lineage_complete: p.lineage_complete,
        };
        let mut principals: Vec<_> = self.by_id.values().map(saved).collect();
        principals.sort_unstable_by_key(|principal| principal.id);
        let by_key_path = self.by_key_path.iter().map(|(path, id)| (path.clone(), *id)).collect();
        SavedIdentities { principals, by_key_path }
    }

    /// A second creation of the same id changes nothing.
    pub(super) fn create(&mut self, new: &IdentityCreated) {
        if self.by_id.contains_key(&new.identity_id) {
            return;
        }
        let (above, above_complete): (&[IdentityId], bool) = match &new.parent {
            None => (&[], true),
            Some(parent) => match self.by_id.get(parent) {
                Some(known) => (&known.lineage, known.lineage_complete),
                None => (std::slice::from_ref(parent), false),
            },
        };
        let lineage_complete = above_complete && above.len() < IDENTITY_DEPTH_MAX;
        let lineage =
            std::iter::once(new.identity_id).chain(above.iter().copied()).take(IDENTITY_DEPTH_MAX).collect();
        let principal = Principal {
            id: new.identity_id,
            name: new.name.clone(),
            identity_type: new.identity_type,
            parent: new.parent,
            public_key: new.public_key,
            key_path: new.key_path.clone(),
            status: IdentityStatus::Active,
            lineage,
            lineage_complete,
            name_key: super::anchor::name_key(&new.name),
        };
        record(&mut self.digest, &principal);
        self.by_key_path.entry(new.key_path.clone()).or_insert(new.identity_id);
        self.by_id.insert(new.identity_id, principal);
    }

    /// An illegal change changes nothing (IDN-38).
    pub(super) fn set_status(&mut self, id: &IdentityId, status: IdentityStatus) {
        let Some(principal) = self.by_id.get_mut(id) else { return };
        if principal.status.may_become(status) {
            principal.status = status;
            record(&mut self.digest, principal);
        }
    }
}

fn record(digest: &mut SetDigest, p: &Principal) {
    let item = Item {
        id: &p.id,
        name: &p.name,
        identity_type: p.identity_type,
        parent: p.parent.as_ref(),
        public_key: &p.public_key,
        key_path: &p.key_path,
        status: p.status,
    };
    digest.set(&p.id.0, Some(&cbor::encode(&item)));
}
