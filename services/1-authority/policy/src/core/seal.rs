//! From planned units to what is sent: one root signature for all decisions of a group (decision 0001).

use base::{EntryKey, Hash, IdentityId, Signature};
use chain::{
    merkle::{Tree, leaf},
    payload::{
        Envelope, PayloadError,
        policy::{DecisionSignature, SignedDecision},
    },
};

use super::engine::{Entry, Unit};

const DECISION: u32 = 85;

/// A unit as the sequencer takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedUnit {
    pub id: u64,
    pub proposals: Vec<Entry>,
    /// CBOR `SignedDecision`, for the reply; empty for records.
    pub signed_decision: Vec<u8>,
}

/// Signs the root over all decisions of the group once. `policy` is the engine's identity, `sign` signs a root.
pub fn seal(
    units: Vec<Unit>,
    policy: IdentityId,
    sign: &dyn Fn(&Hash) -> Signature,
) -> Result<Vec<SealedUnit>, PayloadError> {
    let leaves: Vec<Hash> = units.iter().filter_map(|unit| unit.decision.as_deref()).map(leaf).collect();
    let count = u32::try_from(leaves.len()).unwrap_or(u32::MAX);
    let keys: Vec<EntryKey> = leaves.iter().map(key_of).collect();
    let mut keys = keys.into_iter();
    let tree = Tree::new(leaves);
    let root = tree.as_ref().map(|tree| sign(&tree.root()));
    let mut sealed = Vec::with_capacity(units.len());
    let mut index = 0;
    for unit in units {
        let mut proposals = Vec::with_capacity(2);
        let mut signed_decision = Vec::new();
        let decided = unit.decision.and_then(|body| Some((body, keys.next()?)));
        if let (Some((body, key)), Some(tree), Some(root)) = (decided, tree.as_ref(), root) {
            let path = tree.path(index).unwrap_or_default();
            let signed = SignedDecision { body, signature: DecisionSignature { root, index, count, path } };
            index += 1;
            signed_decision = base::cbor::encode(&signed);
            proposals.push(Entry { entry_type: DECISION, payload: payload_of(signed, policy, key)? });
        }
        proposals.extend(unit.entry);
        sealed.push(SealedUnit { id: unit.id, proposals, signed_decision });
    }
    Ok(sealed)
}

/// The body holds nonce and time, so its hash is unique for as long as keys must be.
fn key_of(leaf: &Hash) -> EntryKey {
    let hash = Hash::of_parts(&[b"bailiwick decision key v2\0", &leaf.0]);
    EntryKey(hash.0.first_chunk::<16>().copied().unwrap_or_default())
}

fn payload_of(signed: SignedDecision, policy: IdentityId, key: EntryKey) -> Result<Vec<u8>, PayloadError> {
    Envelope { submitter: policy, key, authorization: None, body: signed }.to_bytes()
}
