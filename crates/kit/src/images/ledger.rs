//! Names of container images: a fold of the log.
//!
//! A name points to one image and belongs to who imported it. An image may have several names, also of several owners; the
//! last one that goes takes its content with it.

use std::collections::BTreeMap;

use base::{
    AxiomRef, AxiomTime, IdentityId, TreeId,
    cbor::{self, CborError},
};
use chain::payload::{
    Payload,
    image::{ImageImport, ImageRemove},
};
use minicbor::{Decode, Encode};

use super::Reference;

/// What a name points to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Named {
    #[n(0)]
    pub tree: TreeId,
    #[n(1)]
    pub owner: IdentityId,
    #[n(2)]
    pub since: AxiomTime,
    /// The entry that says so.
    #[n(3)]
    pub at: AxiomRef,
    /// As that entry says.
    #[n(4)]
    pub manifest: Option<TreeId>,
}

/// Fold of entries 76 and 77.
#[derive(Debug, Default)]
pub struct ImageLedger {
    names: BTreeMap<String, Named>,
}

impl ImageLedger {
    /// Equal folds, equal bytes.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        cbor::encode(&self.names)
    }

    /// What `save` has written, as it was folded.
    pub fn restore(bytes: &[u8]) -> Result<Self, CborError> {
        Ok(Self { names: cbor::decode(bytes)? })
    }

    /// Folds one committed entry. One that was decided on what is no longer so changes nothing: of two who wanted a free
    /// name at once, the first one has it.
    pub fn apply(&mut self, at: AxiomRef, time: AxiomTime, payload: &Payload) {
        match payload {
            Payload::ImageImport(entry) => self.imported(at, time, &entry.body),
            Payload::ImageRemove(entry) => self.removed(&entry.body),
            _ => {}
        }
    }

    fn imported(&mut self, at: AxiomRef, time: AxiomTime, import: &ImageImport) {
        let holder = self.names.get(&import.name).map(|named| named.owner);
        if holder.is_some_and(|holder| holder != import.by && import.taken_from != Some(holder)) {
            return;
        }
        let (tree, manifest) = (import.tree, import.manifest);
        let named = Named { tree, owner: import.by, since: time, at, manifest };
        let Some(before) = self.names.insert(import.name.clone(), named) else { return };
        // An image does not go because its name went elsewhere: it is called by its id then, and is still its owner's.
        if !self.is_named(before.tree) {
            self.names.insert(before.tree.to_string(), before);
        }
    }

    fn removed(&mut self, remove: &ImageRemove) {
        let Some(named) = self.names.get(&remove.name) else { return };
        let may = named.owner == remove.by || remove.taken_from == Some(named.owner);
        if named.tree == remove.tree && may {
            self.names.remove(&remove.name);
        }
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Named> {
        self.names.get(name)
    }

    /// By name.
    pub fn all(&self) -> impl Iterator<Item = (&String, &Named)> {
        self.names.iter()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    #[must_use]
    pub fn is_named(&self, tree: TreeId) -> bool {
        self.names.values().any(|named| named.tree == tree)
    }

    /// Whose a name is, if it is not this one's: then it is taken, which is another act.
    #[must_use]
    pub fn other_owner(&self, name: &str, requestor: IdentityId) -> Option<IdentityId> {
        self.names.get(name).map(|named| named.owner).filter(|owner| *owner != requestor)
    }

    /// The name by which somebody means an image: the one that was said, else the first of their own, else the first. None
    /// if it has no such name.
    #[must_use]
    pub fn meant(&self, tree: TreeId, name: &str, by: IdentityId) -> Option<(String, Named)> {
        let known = |(name, named): (&String, &Named)| (name.clone(), named.clone());
        let mut of_tree = self.names.iter().filter(|(_, named)| named.tree == tree);
        let found = match name {
            "" => of_tree.clone().find(|(_, named)| named.owner == by).or_else(|| of_tree.next()),
            _ => of_tree.find(|(known, _)| *known == name),
        };
        found.map(known)
    }

    /// What somebody means who says a name, an id, or the digest that a registry has for it.
    #[must_use]
    pub fn said(&self, reference: &Reference, by: IdentityId) -> Option<(String, Named)> {
        let Some(digest) = reference.digest else {
            let named = self.names.get(&reference.name)?;
            return Some((reference.name.clone(), named.clone()));
        };
        let of = |named: &&Named| named.tree == digest || named.manifest == Some(digest);
        let tree = self.names.values().find(of)?.tree;
        // Its name may have gone elsewhere since.
        self.meant(tree, &reference.name, by).or_else(|| self.meant(tree, "", by))
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
