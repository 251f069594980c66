//! The rights as bytes, for a service's own snapshot. Names of objects are not kept here, so their hashes are written down,
//! and the key under which they were hashed: the next process goes on with both.

use base::{CapabilityId, IdentityId};
use chain::payload::capability::{Permissions, Restrictions};
use minicbor::{Decode, Encode, bytes::ByteArray};

use super::{AtPlace, Held, Place, Right, Rights, Secret};

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct SavedRight {
    #[n(0)]
    id: CapabilityId,
    #[n(1)]
    holder: IdentityId,
    #[n(2)]
    object: ByteArray<16>,
    #[n(3)]
    place: ByteArray<16>,
    #[n(4)]
    permissions: Permissions,
    #[n(5)]
    restrictions: Option<Restrictions>,
    #[n(6)]
    parent: Option<CapabilityId>,
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct SavedRights {
    #[n(0)]
    secret: (u64, u64),
    /// In order of id.
    #[n(1)]
    rights: Vec<SavedRight>,
}

impl Rights {
    pub(crate) fn save(&self) -> SavedRights {
        let mut rights: Vec<SavedRight> = self.all.iter().flatten().map(|right| self.saved(right)).collect();
        rights.sort_unstable_by_key(|right| right.id);
        SavedRights { secret: (self.secret.0, self.secret.1), rights }
    }

    fn saved(&self, right: &Right) -> SavedRight {
        SavedRight {
            id: right.id,
            holder: right.holder,
            object: right.object.0.to_be_bytes().into(),
            place: right.place.0.to_be_bytes().into(),
            permissions: right.permissions,
            restrictions: right.restrictions.as_deref().cloned(),
            parent: right.parent.and_then(|parent| self.get(parent)).map(|parent| parent.id),
        }
    }

    /// For a test that compares the bytes of two folds.
    #[cfg(test)]
    pub(crate) fn with_secret(secret: (u64, u64)) -> Self {
        Self { secret: Secret(secret.0, secret.1), ..Self::default() }
    }
}

impl SavedRights {
    /// None if a right is there twice, or derives from one that is not there, or there are more than can be counted.
    pub(crate) fn restore(self) -> Option<Rights> {
        let mut rights = Rights { secret: Secret(self.secret.0, self.secret.1), ..Rights::default() };
        let parents: Vec<Option<CapabilityId>> = self.rights.iter().map(|right| right.parent).collect();
        for saved in self.rights {
            rights.put_back(saved)?;
        }
        for (index, parent) in parents.into_iter().enumerate() {
            let Some(parent) = parent else { continue };
            let parent = *rights.by_id.get(&parent)?;
            let index = u32::try_from(index).ok()?;
            rights.get_mut(parent)?.children.push(index);
            rights.get_mut(index)?.parent = Some(parent);
        }
        Some(rights)
    }
}

impl Rights {
    fn put_back(&mut self, saved: SavedRight) -> Option<()> {
        let right = Right {
            id: saved.id,
            holder: saved.holder,
            object: Place(u128::from_be_bytes(saved.object.into())),
            place: Place(u128::from_be_bytes(saved.place.into())),
            permissions: saved.permissions,
            restrictions: saved.restrictions.map(Box::new),
            parent: None,
            children: Vec::new(),
        };
        let (id, place) = (right.id, right.place);
        let held =
            Held::of(u32::try_from(self.all.len()).ok()?, right.permissions, right.restrictions.as_deref());
        let index = self.keep(right)?;
        let is_new = self.by_id.insert(id, index).is_none();
        self.places.entry(place).and_modify(|at| at.push(held)).or_insert(AtPlace::One(held));
        is_new.then_some(())
    }
}
