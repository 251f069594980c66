//! Who holds which right: a fold made for one question, asked on the way of every call.
//!
//! Rights lie under a hash of holder and object, 128 bits under a key that this process drew at its start: nobody can look
//! for two names that meet, and by chance none do. So no name is kept here, however long it is; who must tell names has
//! `capability_service`.

mod saved;

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState},
};

use base::{AxiomTime, CapabilityId, IdentityId};
use chain::payload::capability::{CapabilityGrant, Permissions, Resource, Restrictions};
use siphasher::sip128::{Hasher128, SipHasher13};

pub(crate) use self::saved::SavedRights;

/// A holder with an object, or an object alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u128);

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Hashed already: half of it is as good as another hash of it.
        state.write_u64(self.0 as u64);
    }
}

#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// What a look-up needs of a right, beside its neighbours.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// In `Rights::all`.
    right: u32,
    permissions: Permissions,
    has_time: bool,
    /// It has limits that only capability_service can count or compare: a look-up alone does not suffice.
    needs_check: bool,
}

impl Held {
    fn of(right: u32, permissions: Permissions, own: Option<&Restrictions>) -> Self {
        Self {
            right,
            permissions,
            has_time: own.is_some_and(|own| own.time.is_some()),
            needs_check: own.is_some_and(Restrictions::need_check),
        }
    }
}

/// Nearly always one.
#[derive(Debug)]
enum AtPlace {
    One(Held),
    Many(Vec<Held>),
}

impl AtPlace {
    fn as_slice(&self) -> &[Held] {
        match self {
            Self::One(held) => std::slice::from_ref(held),
            Self::Many(held) => held,
        }
    }

    fn push(&mut self, new: Held) {
        match self {
            Self::One(held) => *self = Self::Many(vec![*held, new]),
            Self::Many(held) => held.push(new),
        }
    }
}

/// A right that was not taken back.
#[derive(Debug)]
struct Right {
    id: CapabilityId,
    holder: IdentityId,
    object: Place,
    place: Place,
    permissions: Permissions,
    restrictions: Option<Box<Restrictions>>,
    parent: Option<u32>,
    children: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Secret(u64, u64);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

#[derive(Debug)]
pub(crate) struct Rights {
    secret: Secret,
    places: HashMap<Place, AtPlace, BuildHasherDefault<AsItIs>>,
    by_id: HashMap<CapabilityId, u32>,
    /// `None` where one was taken back; such places are in `free`.
    all: Vec<Option<Right>>,
    free: Vec<u32>,
}

impl Default for Rights {
    fn default() -> Self {
        // What the standard library draws from the kernel for its own maps.
        let random = RandomState::new();
        Self {
            secret: Secret(random.hash_one(0_u8), random.hash_one(1_u8)),
            places: HashMap::default(),
            by_id: HashMap::default(),
            all: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl Rights {
    /// What these add up to, in whatever order they come.
    pub(crate) fn of<'g>(grants: impl IntoIterator<Item = &'g CapabilityGrant>) -> Self {
        let mut below: HashMap<Option<CapabilityId>, Vec<&CapabilityGrant>> = HashMap::new();
        for grant in grants {
            below.entry(grant.parent).or_default().push(grant);
        }
        let mut rights = Self::default();
        let mut left = below.remove(&None).unwrap_or_default();
        while let Some(grant) = left.pop() {
            rights.grant(grant);
            left.extend(below.remove(&Some(grant.capability_id)).unwrap_or_default());
        }
        rights
    }

    fn place(&self, holder: Option<&IdentityId>, object: &Resource) -> Place {
        let mut hasher = SipHasher13::new_with_keys(self.secret.0, self.secret.1);
        // Fixed lengths on both sides of the name: no two make the same bytes.
        if let Some(holder) = holder {
            hasher.write(&holder.0);
        }
        hasher.write(object.object_id.as_bytes());
        hasher.write_u8(object.object_type as u8);
        hasher.write_u8(u8::from(holder.is_some()));
        Place(hasher.finish128().as_u128())
    }

    fn get(&self, index: u32) -> Option<&Right> {
        self.all.get(index as usize)?.as_ref()
    }

    fn get_mut(&mut self, index: u32) -> Option<&mut Right> {
        self.all.get_mut(index as usize)?.as_mut()
    }

    fn by_id(&self, id: &CapabilityId) -> Option<&Right> {
        self.get(*self.by_id.get(id)?)
    }

    fn at(&self, holder: &IdentityId, object: &Resource) -> &[Held] {
        self.places.get(&self.place(Some(holder), object)).map(AtPlace::as_slice).unwrap_or_default()
    }

    fn is_valid(&self, held: &Held, now: AxiomTime) -> bool {
        if held.needs_check {
            return false;
        }
        let time = || self.get(held.right)?.restrictions.as_ref()?.time.as_ref();
        !held.has_time || time().is_some_and(|time| time.admits(now))
    }

    /// True if one of what the holder has on the object permits all of this now, unconditionally but for time.
    pub(crate) fn permit(
        &self,
        holder: &IdentityId,
        object: &Resource,
        asked: Permissions,
        now: AxiomTime,
    ) -> bool {
        let mut held = self.at(holder, object).iter();
        held.any(|held| held.permissions.contains(asked) && self.is_valid(held, now))
    }

    /// The same of one right.
    pub(crate) fn is_valid_now(&self, id: &CapabilityId, now: AxiomTime) -> bool {
        let admits =
            |own: &Restrictions| !own.need_check() && own.time.as_ref().is_none_or(|time| time.admits(now));
        self.by_id(id).is_some_and(|right| right.restrictions.as_deref().is_none_or(admits))
    }

    pub(crate) fn holder(&self, id: &CapabilityId) -> Option<IdentityId> {
        self.by_id(id).map(|right| right.holder)
    }

    /// Whatever they permit and whenever they hold.
    pub(crate) fn held_on(&self, holder: &IdentityId, object: &Resource) -> Vec<CapabilityId> {
        self.at(holder, object).iter().filter_map(|held| self.get(held.right)).map(|right| right.id).collect()
    }

    /// A grant whose parent is gone, or that gives more than its parent, gives nothing.
    pub(crate) fn grant(&mut self, grant: &CapabilityGrant) {
        let object = self.place(None, &grant.resource);
        let parent = match grant.parent {
            None => None,
            Some(id) => {
                match self.by_id.get(&id).copied().filter(|at| self.may_come_from(grant, object, *at)) {
                    Some(parent) => Some(parent),
                    None => return,
                }
            }
        };
        if self.by_id.contains_key(&grant.capability_id) {
            return;
        }
        let place = self.place(Some(&grant.grantee), &grant.resource);
        let right = Right {
            id: grant.capability_id,
            holder: grant.grantee,
            object,
            place,
            permissions: grant.permissions,
            restrictions: grant.restrictions.clone().map(Box::new),
            parent,
            children: Vec::new(),
        };
        let Some(index) = self.keep(right) else { return };
        if let Some(parent) = parent.and_then(|parent| self.get_mut(parent)) {
            parent.children.push(index);
        }
        self.by_id.insert(grant.capability_id, index);
        let held = Held::of(index, grant.permissions, grant.restrictions.as_ref());
        self.places.entry(place).and_modify(|at| at.push(held)).or_insert(AtPlace::One(held));
    }

    fn may_come_from(&self, grant: &CapabilityGrant, object: Place, source: u32) -> bool {
        self.get(source).is_some_and(|source| {
            source.object == object
                && source.permissions.contains(grant.permissions)
                && Restrictions::narrow(grant.restrictions.as_ref(), source.restrictions.as_deref())
        })
    }

    /// Where it lies from now on; none if there are more than can be counted.
    fn keep(&mut self, right: Right) -> Option<u32> {
        if let Some(index) = self.free.pop() {
            *self.all.get_mut(index as usize)? = Some(right);
            return Some(index);
        }
        let index = u32::try_from(self.all.len()).ok()?;
        self.all.push(Some(right));
        Some(index)
    }

    /// The right and everything derived from it; without recursion, for chains may be long, and with one look at what
    /// each holder has, for one may hold all of a large tree.
    pub(crate) fn revoke(&mut self, root: CapabilityId) {
        let Some(root) = self.by_id.get(&root).copied() else { return };
        let parent = self.get(root).and_then(|right| right.parent);
        if let Some(parent) = parent.and_then(|parent| self.get_mut(parent)) {
            parent.children.retain(|child| *child != root);
        }
        let mut touched = Vec::new();
        let mut emptied = Vec::new();
        let mut left = vec![root];
        while let Some(index) = left.pop() {
            let Some(right) = self.all.get_mut(index as usize).and_then(Option::take) else { continue };
            self.by_id.remove(&right.id);
            touched.push(right.place);
            emptied.push(index);
            if crate::is_broken("cascade") {
                right.children.iter().for_each(|child| self.orphan(*child));
            } else {
                left.extend(right.children);
            }
        }
        touched.sort_unstable();
        touched.dedup();
        touched.into_iter().for_each(|place| self.clear(place));
        // Only now: what is cleared is told by its place being empty.
        self.free.append(&mut emptied);
    }

    fn orphan(&mut self, index: u32) {
        if let Some(right) = self.get_mut(index) {
            right.parent = None;
        }
    }

    /// Drops what was taken back.
    fn clear(&mut self, place: Place) {
        let Some(at) = self.places.get_mut(&place) else { return };
        let is_there = |held: &Held| self.all.get(held.right as usize).is_some_and(Option::is_some);
        let is_empty = match at {
            AtPlace::One(held) => !is_there(held),
            AtPlace::Many(held) => {
                held.retain(is_there);
                held.is_empty()
            }
        };
        if is_empty {
            self.places.remove(&place);
        }
    }
}

#[cfg(test)]
#[path = "rights_tests.rs"]
mod tests;
