//! Writing a log of decisions and receipts through the store.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use axiom::store::{CommitterThread, Opened, Space, Store, StoreOptions};
use base::{
    AxiomRef, AxiomTime, CapabilityId, EntryKey, Hash, IdentityId, Nonce, PublicKey, RuleId, Sequence, cbor,
};
use chain::{
    ChainPoint, Entry, EntryType, LogFolder, Placed, VerifyOptions, merkle,
    payload::{
        Envelope, Receipt, ReceiptStatus,
        policy::{
            DecisionBody, DecisionSignature, PolicyAction, PolicyContext, PolicyEffect, ResourceRef,
            ResourceType, SignedDecision,
        },
    },
    tree::TreeHash,
    verify_log,
};
use durable::RealDisk;
use ed25519_dalek::SigningKey;

use crate::log::genesis;

/// Pairs of a decision and what it allowed: one group of a busy node.
pub(super) const PAIRS_OF_A_GROUP: usize = 64;
const APART_NS: u64 = 10_000_000;
/// 2026-01-01.
const START: u64 = 1_767_225_600_000_000_000;

/// A log that was written.
pub(super) struct Written {
    pub root: PathBuf,
    /// Of the segments.
    pub folder: PathBuf,
    pub entries: u64,
    pub payload_bytes: u64,
    pub groups: u64,
    pub last: AxiomRef,
}

pub(super) fn policy_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub(super) fn sequencer_key() -> SigningKey {
    SigningKey::from_bytes(&[8; 32])
}

pub(super) fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

pub(super) fn leaf(placed: &Placed<'_>) -> TreeHash {
    TreeHash::leaf_of(&[&placed.record.header.encode(), placed.record.payload])
}

/// Decision bodies of one group.
pub(super) fn bodies(from: u64, count: usize, time: AxiomTime) -> Vec<Vec<u8>> {
    let body = |n: u64| {
        cbor::encode(&DecisionBody {
            request_hash: Hash::of(&n.to_le_bytes()),
            requestor: IdentityId([3; 32]),
            action: PolicyAction::DelegateCapability {
                capability: CapabilityId([1; 16]),
                to: IdentityId([3; 32]),
            },
            resource: ResourceRef { resource_type: ResourceType::Capability, id: "/srv/data".into() },
            context: PolicyContext::default(),
            nonce: Nonce(*Hash::of(&n.to_be_bytes()).0.first_chunk().unwrap_or(&[0; 16])),
            policy_state_hash: Hash::ZERO,
            matched_rules: vec![RuleId::default_deny()],
            effect: PolicyEffect::Allow,
            deciding_rule: RuleId::default_deny(),
            conditions: vec![],
            timestamp: time,
            reason: None,
        })
    };
    (from..).take(count).map(body).collect()
}

/// Each with the signature that they share.
pub(super) fn signed(key: &SigningKey, bodies: Vec<Vec<u8>>) -> Result<Vec<SignedDecision>> {
    let count = u32::try_from(bodies.len())?;
    let leaves = bodies.iter().map(|body| merkle::leaf(body)).collect();
    let tree = merkle::Tree::new(leaves).context("a tree of decisions")?;
    let root = merkle::sign_root(key, &tree.root());
    let sign = |(index, body): (u32, Vec<u8>)| {
        let path = tree.path(index).context("a path")?;
        Ok(SignedDecision { body, signature: DecisionSignature { root, index, count, path } })
    };
    (0..).zip(bodies).map(sign).collect()
}

fn key_of(n: u64) -> EntryKey {
    EntryKey(*Hash::of(&n.to_le_bytes()).0.last_chunk().unwrap_or(&[0; 16]))
}

fn receipt(n: u64, decision: Sequence) -> Result<Vec<u8>> {
    let body = Receipt {
        axiom_entry: AxiomRef { sequence: decision, hash: Hash::ZERO },
        inputs: vec![],
        outputs: vec![Hash::of(b"output"); 2],
        environment: Hash::ZERO,
        status: ReceiptStatus::Success,
        proof: None,
    };
    Ok(Envelope { submitter: IdentityId([2; 32]), key: key_of(n), authorization: None, body }.to_bytes()?)
}

/// Decisions with their receipts, as they follow on `point`, and the bytes of their payloads.
pub(super) fn group(mut point: ChainPoint, pairs: usize) -> Result<(Vec<(Entry, Hash)>, u64)> {
    let first = point.next_sequence.0;
    let decisions = signed(&policy_key(), bodies(first, pairs, AxiomTime(START + first * APART_NS)))?;
    let mut made = Vec::with_capacity(2 * pairs);
    let mut bytes = 0;
    for (n, body) in (first..).zip(decisions) {
        let envelope =
            Envelope { submitter: IdentityId([4; 32]), key: key_of(2 * n), authorization: None, body };
        let at = point.next_sequence;
        for (kind, payload) in
            [(EntryType::PolicyDecision, envelope.to_bytes()?), (EntryType::Receipt, receipt(2 * n + 1, at)?)]
        {
            bytes += payload.len() as u64;
            let sequence = point.next_sequence;
            let time = AxiomTime(START + sequence.0 * APART_NS);
            let (entry, hash) = Entry::next(sequence, point.last_hash, time, kind, payload)?;
            point = ChainPoint::after(AxiomRef { sequence, hash });
            made.push((entry, hash));
        }
    }
    Ok((made, bytes))
}

/// `pairs` decisions with their receipts a group; with one, a decision and a receipt are groups of their own.
pub(super) fn write(root: &Path, entries: u64, pairs: usize) -> Result<Written> {
    std::fs::create_dir(root)?;
    let (disk, head_disk) = (RealDisk::open(root.join("axiom"))?, RealDisk::open(root.join("head"))?);
    let store = Store { disk: &disk, head_disk: &head_disk, options: StoreOptions::new([1; 32]) };
    let genesis = genesis(public(&sequencer_key()), public(&policy_key()))?;
    let mut payload_bytes = genesis.0.payload.len() as u64;
    let Opened { mut layout, committer, .. } = store.open(|| Some(genesis), |_| {})?;
    let mut committer = CommitterThread::start(committer)?;
    let mut groups = 1;
    while layout.point().next_sequence.0 < entries {
        let (mut made, bytes) = group(layout.point(), pairs)?;
        payload_bytes += bytes;
        let size = if pairs == 1 { 1 } else { made.len() };
        while !made.is_empty() {
            let rest = made.split_off(size.min(made.len()));
            if layout.space(1 << 18) == Space::Full {
                bail!("the disk is full");
            }
            let committed = committer.commit_here(layout.prepare(std::mem::replace(&mut made, rest))?)?;
            layout.recycle(committed.buffer);
            groups += 1;
        }
    }
    let last = layout.point().last().context("an empty log")?;
    let folder = root.join("axiom").join("log");
    Ok(Written { root: root.to_owned(), folder, entries: last.sequence.0 + 1, payload_bytes, groups, last })
}

impl Written {
    /// The first entries.
    pub(super) fn read(&self, count: usize) -> Result<Vec<(Entry, Hash)>> {
        let mut entries = Vec::new();
        verify_log(&LogFolder::new(&self.folder), &VerifyOptions::default(), |placed| {
            if entries.len() < count {
                entries.push((placed.record.to_entry(), placed.hash));
            }
        })?;
        Ok(entries)
    }

    /// Bytes that the log takes, without what its last segment has not used yet.
    pub(super) fn used_bytes(&self) -> Result<f64> {
        let records = self.entries * 97 + self.payload_bytes;
        let headers = self.groups * 64 + std::fs::read_dir(&self.folder)?.count() as u64 * 512;
        Ok((records + headers) as f64)
    }
}

/// Of published hashes and lengths, an entry: 32 bytes for each complete subtree whose level is a multiple of 8, and 2.
pub(super) fn tile_bytes(entries: u64) -> f64 {
    let hashes: u64 = (0..8).map(|level| entries >> (8 * level)).sum();
    (hashes * 32) as f64 / entries as f64 + 2.0
}
