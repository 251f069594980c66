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

use super::{ProcessError, limits::TREE_NAME_BYTES_MAX};

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

    /// The name by which somebody means an image: the one that was said, else the first of their own, else the first.
    pub fn meant(&self, tree: TreeId, name: &str, by: IdentityId) -> Result<(String, Named), ProcessError> {
        let known = |(name, named): (&String, &Named)| (name.clone(), named.clone());
        let mut of_tree = self.names.iter().filter(|(_, named)| named.tree == tree);
        let found = match name {
            "" => of_tree.clone().find(|(_, named)| named.owner == by).or_else(|| of_tree.next()),
            _ => of_tree.find(|(known, _)| *known == name),
        };
        let wanted = || if name.is_empty() { tree.to_string() } else { format!("{name} with the id {tree}") };
        found.map(known).ok_or_else(|| ProcessError::NoTree(wanted()))
    }
}

/// A name that can be given to an image. None looks like an id, and none holds the `@` behind which rules see the id.
pub fn image_name(name: &str) -> Result<(), ProcessError> {
    let wrong = |text: String| Err(ProcessError::invalid("name", text));
    if name.is_empty() || name.len() > TREE_NAME_BYTES_MAX {
        return wrong(format!("{} bytes; a name has 1 to {TREE_NAME_BYTES_MAX}", name.len()));
    }
    if name.chars().any(|one| one.is_control() || one.is_whitespace() || one == '@') {
        return wrong(format!(
            "{name:?} has an `@`, a space or a control character; give another with --name"
        ));
    }
    if ["sha256:", "blake3:"].iter().any(|prefix| name.starts_with(prefix)) {
        return wrong(format!("{name:?} looks like an id; give another with --name"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
