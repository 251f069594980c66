//! All capabilities that the log ever granted, live and revoked.

use std::collections::BTreeMap;

use base::CapabilityId;
use chain::payload::capability::CapabilityGrant;
use minicbor::{
    Decode, Decoder, Encode, Encoder,
    decode::Error as DecodeError,
    encode::{Error as EncodeError, Write},
};

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct CapabilityRecord {
    #[n(0)]
    pub grant: CapabilityGrant,
    /// Taken back, itself or through an ancestor. The id is never used again.
    #[n(1)]
    pub revoked: bool,
}

/// Encoded as the map alone. What is derived from what is kept beside it, so that taking back a tree costs the tree and
/// not the product of the tree and everything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    by_id: BTreeMap<CapabilityId, CapabilityRecord>,
    /// Children that are not revoked.
    children: BTreeMap<CapabilityId, Vec<CapabilityId>>,
}

impl Capabilities {
    #[must_use]
    pub const fn all(&self) -> &BTreeMap<CapabilityId, CapabilityRecord> {
        &self.by_id
    }

    /// One that was granted and not taken back.
    #[must_use]
    pub fn live(&self, id: &CapabilityId) -> Option<&CapabilityGrant> {
        self.by_id.get(id).filter(|record| !record.revoked).map(|record| &record.grant)
    }

    /// All that were granted and not taken back.
    pub fn all_live(&self) -> impl Iterator<Item = &CapabilityGrant> {
        self.by_id.values().filter(|record| !record.revoked).map(|record| &record.grant)
    }

    #[must_use]
    pub fn was_granted(&self, id: &CapabilityId) -> bool {
        self.by_id.contains_key(id)
    }

    pub(super) fn grant(&mut self, grant: &CapabilityGrant) {
        let record = CapabilityRecord { grant: grant.clone(), revoked: false };
        self.insert(grant.capability_id, record);
    }

    fn insert(&mut self, id: CapabilityId, record: CapabilityRecord) {
        if let Some(parent) = record.grant.parent.filter(|_| !record.revoked) {
            self.children.entry(parent).or_default().push(id);
        }
        self.by_id.insert(id, record);
    }

    /// With everything derived from it; without recursion, for chains may be long.
    pub(super) fn revoke(&mut self, root: CapabilityId) {
        let parent = self.by_id.get(&root).and_then(|record| record.grant.parent);
        if let Some((parent, siblings)) = parent.zip(parent.and_then(|parent| self.children.get_mut(&parent)))
        {
            siblings.retain(|sibling| *sibling != root);
            if siblings.is_empty() {
                self.children.remove(&parent);
            }
        }
        let mut left = vec![root];
        while let Some(id) = left.pop() {
            if let Some(record) = self.by_id.get_mut(&id) {
                record.revoked = true;
            }
            left.extend(self.children.remove(&id).unwrap_or_default());
        }
    }
}

impl<C> Encode<C> for Capabilities {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), EncodeError<W::Error>> {
        self.by_id.encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Capabilities {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        let mut all = Self::default();
        for (id, record) in BTreeMap::<CapabilityId, CapabilityRecord>::decode(d, ctx)? {
            all.insert(id, record);
        }
        Ok(all)
    }
}
