//! A published log as its readers have it: checking it, and getting it witnessed. Works on the folder alone.

use std::{io::Read, path::Path};

use anyhow::{Context, Result, bail};
use base::Hash;
use chain::{
    checkpoint::{SignedCheckpoint, origin},
    evidence::Expected,
    note::{Algorithm, NOTE_BYTES_MAX, NoteSignature, SIGNATURES_MAX, VerifierKey},
    payload::Payload,
    tiles::{TILE_BYTES_MAX, TILE_WIDTH, Tile, TileBuilder, TileKind, TileNodes, bundle_entries},
    tree::{TreeHash, consistency_proof},
    witness::AddCheckpoint,
};
use durable::{Disk, RealDisk, read_small, replace};
use serde::Serialize;

use super::{
    publish::read_published,
    verify::{Checked, witnesses},
};
use crate::{args::Output, exit::Failure, output};

fn refuse(what: impl std::fmt::Display) -> anyhow::Error {
    Failure::refused(&what).into()
}

fn disk(dir: &Path) -> Result<RealDisk> {
    if !dir.is_dir() {
        bail!("{} is no folder; `bailiwick log publish` makes one", dir.display());
    }
    Ok(RealDisk::open(dir)?.public())
}

fn file(disk: &RealDisk, tile: &Tile) -> Result<Vec<u8>> {
    let bytes = read_small(disk, &tile.to_string(), TILE_BYTES_MAX)?;
    bytes.ok_or_else(|| refuse(format_args!("{tile} is missing")))
}

/// The log's key as its first entry pins it.
fn pinned(disk: &RealDisk, size: u64) -> Result<VerifierKey> {
    let tile = Tile::of_tree(TileKind::Entries, 0, size).context("an empty log has no key")?;
    let bundle = file(disk, &tile)?;
    let first = bundle_entries(&bundle, tile.width).and_then(|entries| entries.first().copied());
    let leaf =
        first.ok_or_else(|| refuse(format_args!("{tile} is not a bundle of {} entries", tile.width)))?;
    let payload = leaf.get(base::limits::ENTRY_HEADER_BYTES..).unwrap_or_default();
    match Payload::decode(0, payload) {
        Ok(Payload::Genesis(envelope)) => {
            let genesis = envelope.body;
            let name = origin(&genesis.node_name, &Hash::of(leaf));
            Ok(VerifierKey::new(name, Algorithm::Ed25519, genesis.sequencer_key)?)
        }
        _ => bail!("the published log does not begin with a genesis entry"),
    }
}

fn unverified(disk: &RealDisk, dir: &Path) -> Result<SignedCheckpoint> {
    let bytes = read_small(disk, "checkpoint", NOTE_BYTES_MAX)?;
    let bytes = bytes.with_context(|| format!("{} holds no checkpoint", dir.display()))?;
    let text = String::from_utf8(bytes).map_err(|_| refuse("the checkpoint is no text"))?;
    text.parse().map_err(refuse)
}

/// Every file that the checkpoint needs, made again from the entries and compared; the root; the signatures.
pub fn check(dir: &Path, expected: &Expected, kept: Option<&SignedCheckpoint>) -> Result<Checked> {
    let disk = disk(dir)?;
    let signed = unverified(&disk, dir)?;
    let key = match &expected.log {
        Some(key) => key.clone(),
        None => pinned(&disk, signed.unverified().size)?,
    };
    let checkpoint = signed.verify(&key).map_err(refuse)?;
    let witnesses = witnesses(&signed, &expected.witnesses)?;
    let kept = kept.map(|kept| kept.verify(&key).cloned()).transpose()?;
    if let Some(kept) = kept.as_ref().filter(|kept| kept.size > checkpoint.size) {
        let (kept, found) = (kept.size, checkpoint.size);
        return Err(refuse(format_args!("the log had {kept} entries before, now {found}: it was cut back")));
    }
    let mut tree = TileBuilder::default();
    let mut kept_root = kept.as_ref().filter(|kept| kept.size == 0).map(|_| TreeHash::empty());
    let mut wrong = None;
    let mut compare = |tile: Tile, bytes: Vec<u8>| {
        if wrong.is_none() {
            wrong = match file(&disk, &tile) {
                Ok(there) if there == bytes => None,
                Ok(_) => Some(refuse(format_args!("{tile} does not hold the hashes of its entries"))),
                Err(error) => Some(error),
            };
        }
    };
    let bundles = checkpoint.size.div_ceil(TILE_WIDTH as u64);
    for tile in (0..bundles).filter_map(|at| Tile::of_tree(TileKind::Entries, at, checkpoint.size)) {
        let bundle = file(&disk, &tile)?;
        let entries = bundle_entries(&bundle, tile.width);
        let entries = entries
            .ok_or_else(|| refuse(format_args!("{tile} is not a bundle of {} entries", tile.width)))?;
        for leaf in entries {
            tree.push(&[leaf], &mut compare);
            if kept.as_ref().is_some_and(|kept| kept.size == tree.size()) {
                kept_root = Some(tree.root());
            }
        }
    }
    tree.partial(&mut compare);
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    if tree.root() != checkpoint.root {
        return Err(refuse("the entries do not have the root that the log signed"));
    }
    if let Some(kept) = kept.as_ref().filter(|kept| kept_root != Some(kept.root)) {
        let size = kept.size;
        return Err(refuse(format_args!(
            "the first {size} entries are not those of before: history was changed"
        )));
    }
    Ok(Checked {
        ok: true,
        kind: "published log",
        key_given: expected.log.is_some(),
        key,
        size: checkpoint.size,
        root: checkpoint.root,
        witnesses,
        older_size: kept.map(|kept| kept.size),
        entries: checkpoint.size,
        shown: Vec::new(),
    })
}

/// `log request`: the body of `add-checkpoint`.
pub fn request(dir: &Path, old: u64) -> Result<()> {
    let disk = disk(dir)?;
    let checkpoint = unverified(&disk, dir)?;
    let size = checkpoint.unverified().size;
    if old > size {
        bail!("the published checkpoint has {size} entries, not {old} or more");
    }
    let read = |tile: &Tile| read_small(&disk, &tile.to_string(), TILE_BYTES_MAX).ok().flatten();
    let consistency = consistency_proof(&TileNodes { size, read }, old, size);
    let consistency =
        consistency.with_context(|| format!("{} lacks tiles that the proof needs", dir.display()))?;
    print!("{}", AddCheckpoint { old, consistency, checkpoint });
    Ok(())
}

#[derive(Serialize)]
struct Cosigned {
    size: u64,
    witnesses: Vec<(String, u64)>,
}

/// `log cosign`: takes the lines that these witnesses signed, and no others, into the published checkpoint.
pub fn cosign(output: Output, dir: &Path, keys: &[String]) -> Result<()> {
    let disk = disk(dir)?;
    let _lock = disk.lock(super::publish::LOCK)?;
    let mut signed = match read_published(&disk, &pinned(&disk, unverified(&disk, dir)?.unverified().size)?)?
    {
        Some(signed) => signed,
        None => bail!("{} holds no checkpoint", dir.display()),
    };
    let mut answer = String::new();
    std::io::stdin().take(NOTE_BYTES_MAX as u64).read_to_string(&mut answer).context("reading the answer")?;
    let lines = answer.lines().take(SIGNATURES_MAX).map(str::parse);
    let lines: Vec<NoteSignature> = lines.collect::<Result<_, _>>().map_err(refuse)?;
    let keys: Vec<VerifierKey> = keys.iter().map(|key| key.parse()).collect::<Result<_, _>>()?;
    for key in &keys {
        let mut held = false;
        for line in lines.iter().filter(|line| line.name() == key.name()) {
            let mut with = signed.clone();
            with.note_mut().replace(key, line.clone())?;
            if with.note().verify(key).is_ok() {
                signed = with;
                held = true;
            }
        }
        if !held {
            return Err(refuse(format_args!(
                "the answer has no signature of {} for this checkpoint",
                key.name()
            )));
        }
    }
    let witnesses = witnesses(&signed, &keys)?;
    replace(&disk, "checkpoint", &[signed.to_string().as_bytes()])?;
    let done = Cosigned { size: signed.unverified().size, witnesses };
    output::show(output, &done, || {
        done.witnesses.iter().map(|(name, time)| format!("witnessed by {name} at {time}\n")).collect()
    })
}
