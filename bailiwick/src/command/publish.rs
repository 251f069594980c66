//! `bailiwick log publish`: the log as static files (C2SP tlog-tiles). What is published is only ever added to.
//!
//! Files go out in this order: full tiles and bundles, partial ones, then the checkpoint that needs them; each is replaced
//! whole and durable before the next. So a stop anywhere leaves the old checkpoint with all its files, and the next run
//! goes on. Nothing is written before the log is known to continue what is published.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use base::{Sequence, layout::Layout};
use chain::{
    checkpoint::{Checkpoint, SignedCheckpoint},
    note::{NOTE_BYTES_MAX, VerifierKey},
    read_log_from,
    tiles::{TILE_BYTES_MAX, TILE_WIDTH, Tile, TileBuilder, TileKind},
};
use durable::{Disk, RealDisk, read_small, replace};
use serde::Serialize;

use super::{
    checkpoint::{self, Signed},
    log_files::LogFiles,
};
use crate::{
    args::{LogFrom, Output},
    exit::Failure,
    output,
};

const CHECKPOINT: &str = "checkpoint";
/// One publisher at a time.
pub const LOCK: &str = ".lock";

#[derive(Serialize)]
struct Published {
    origin: String,
    key: VerifierKey,
    /// Entries before and now.
    before: u64,
    size: u64,
    root: chain::tree::TreeHash,
    files: u64,
}

pub fn publish(layout: &Layout, output: Output, dir: &Path, from: &LogFrom) -> Result<()> {
    let log = checkpoint::find(layout, from)?;
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let disk = RealDisk::open(dir)?.public();
    let _lock = disk.lock(LOCK)?;
    let published = published(&disk, dir, &log)?;
    let before = published.as_ref().map_or(0, |published| published.size);
    let files = if published.is_some() && before == log.checkpoint.size {
        0
    } else {
        let begin = begin(&disk, dir, before)?;
        check(&log, begin.clone(), published.as_ref(), dir)?;
        write(&disk, dir, &log, begin, before)?
    };
    let Checkpoint { origin, size, root } = log.checkpoint;
    let done = Published { origin, key: log.key, before, size, root, files };
    output::show(output, &done, || {
        format!(
            "{}: {size} entries, {} of them new, {files} files written\nkey {}\n",
            dir.display(),
            size.saturating_sub(before),
            done.key
        )
    })
}

/// The published checkpoint of a folder, signed by the log's key.
pub fn read_published(disk: &RealDisk, key: &VerifierKey) -> Result<Option<SignedCheckpoint>> {
    let Some(bytes) = read_small(disk, CHECKPOINT, NOTE_BYTES_MAX)? else { return Ok(None) };
    let signed: SignedCheckpoint = String::from_utf8(bytes).context("the published checkpoint")?.parse()?;
    signed.verify(key)?;
    Ok(Some(signed))
}

/// What the folder holds; refuses another log's, and one that is ahead of this log.
fn published(disk: &RealDisk, dir: &Path, log: &Signed) -> Result<Option<Checkpoint>> {
    let place = dir.display();
    let refuse =
        |why: &dyn std::fmt::Display| Failure::refused(&format_args!("publishing into {place}: {why}"));
    let found = read_published(disk, &log.key)
        .map_err(|error| refuse(&format_args!("what it holds is not of this log: {error:#}")))?;
    let Some(found) = found.map(|signed| signed.unverified().clone()) else { return Ok(None) };
    let new = &log.checkpoint;
    if found.size > new.size {
        let why = format!(
            "it holds {} entries, the checkpoint has {}: the log was rolled back, or the checkpoint is an old one",
            found.size, new.size
        );
        return Err(refuse(&why).into());
    }
    if found.size == new.size && found.root != new.root {
        return Err(refuse(&"it holds another history of the same length").into());
    }
    Ok(Some(found))
}

/// Where the last full bundle of the folder ends.
fn begin(disk: &RealDisk, dir: &Path, published: u64) -> Result<TileBuilder> {
    let read = |tile: &Tile| read_small(disk, &tile.to_string(), TILE_BYTES_MAX).ok().flatten();
    TileBuilder::resume(published, read).with_context(|| {
        format!("{} lacks tiles that its checkpoint needs; publish into a new folder", dir.display())
    })
}

/// Shows every entry from the builder's size up to `to`, in order.
fn read(
    (folder, archives): (&Path, &[PathBuf]),
    from: u64,
    to: u64,
    mut entry: impl FnMut(&[&[u8]]),
) -> Result<u64> {
    let mut next = from;
    // What was published stays; only what is new is read.
    let files = LogFiles::reaching(folder, archives, Sequence(from))?;
    let read = read_log_from(&files, Sequence(from), |placed| {
        let header = &placed.record.header;
        if header.sequence.0 == next && next < to {
            next = next.saturating_add(1);
            entry(&[&header.encode(), placed.record.payload]);
        }
    });
    match read {
        // A log that is being written may look torn at its end.
        Err(fault) if !(fault.may_be_torn_tail && next == to) => Err(Failure::damaged(&fault).into()),
        _ => Ok(next),
    }
}

/// That the log's entries lead from what is published to the new checkpoint. Writes nothing.
fn check(log: &Signed, mut tree: TileBuilder, published: Option<&Checkpoint>, dir: &Path) -> Result<()> {
    let new = &log.checkpoint;
    let mut continues = true;
    let mut compare = |tree: &TileBuilder| {
        if let Some(published) = published.filter(|published| published.size == tree.size()) {
            continues &= published.root == tree.root();
        }
    };
    compare(&tree);
    let reached = read((&log.folder, &log.archives), tree.size(), new.size, |entry| {
        tree.push(entry, |_, _| {});
        compare(&tree);
    })?;
    if !continues {
        let why = format!(
            "publishing into {}: the log is not an extension of what is published there: its history was changed",
            dir.display()
        );
        return Err(Failure::refused(&why).into());
    }
    if reached < new.size {
        bail!("the log ends at {reached} entries, its checkpoint has {}: entries are missing", new.size);
    }
    if tree.root() != new.root {
        let why = format!(
            "the {} entries in {}, on top of what is published, do not have the root that the log signed",
            new.size,
            log.folder.display()
        );
        return Err(Failure::refused(&why).into());
    }
    Ok(())
}

fn write(disk: &RealDisk, dir: &Path, log: &Signed, mut tree: TileBuilder, before: u64) -> Result<u64> {
    let mut out = Out { disk, folders: BTreeSet::new(), files: 0, failed: None };
    let size = log.checkpoint.size;
    read((&log.folder, &log.archives), tree.size(), size, |entry| {
        tree.push(entry, |tile, bytes| out.put(&tile, &bytes))
    })?;
    tree.partial(|tile, bytes| out.put(&tile, &bytes));
    if let Some(error) = out.failed {
        return Err(error);
    }
    replace(disk, CHECKPOINT, &[log.signed.to_string().as_bytes()])?;
    remove_replaced(disk, dir, before, size);
    Ok(out.files.saturating_add(1))
}

/// Writes tiles, each whole and durable.
struct Out<'d> {
    disk: &'d RealDisk,
    /// That exist, durably.
    folders: BTreeSet<String>,
    files: u64,
    failed: Option<anyhow::Error>,
}

impl Out<'_> {
    fn put(&mut self, tile: &Tile, bytes: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.write(&tile.to_string(), bytes).err();
        }
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        match read_small(self.disk, name, TILE_BYTES_MAX)? {
            // What an earlier run wrote before it was stopped.
            Some(there) if there == bytes => return Ok(()),
            Some(_) => {
                let why =
                    format!("{name} is there already with other bytes, and what is published never changes");
                return Err(Failure::refused(&why).into());
            }
            None => {}
        }
        for (at, _) in name.match_indices('/') {
            let folder = name.get(..at).unwrap_or_default();
            if !self.folders.contains(folder) {
                self.disk.create_dir(folder)?;
                self.disk.sync_dir(folder.rsplit_once('/').map_or("", |(parent, _)| parent))?;
                self.folders.insert(folder.to_owned());
            }
        }
        replace(self.disk, name, &[bytes])?;
        self.files = self.files.saturating_add(1);
        Ok(())
    }
}

/// Removes the partial files of what is full by now. That they stay does no harm, so a failure is none.
fn remove_replaced(disk: &RealDisk, dir: &Path, before: u64, size: u64) {
    let kinds = (0..=chain::tiles::TILE_LEVEL_MAX).map(|level| TileKind::Hashes { level });
    for kind in kinds.chain([TileKind::Entries]) {
        let level = if let TileKind::Hashes { level } = kind { level } else { 0 };
        let last = before >> (8 * u32::from(level)) >> TILE_WIDTH.ilog2();
        let Some(tile) = Tile::of_tree(kind, last, size).filter(Tile::is_full) else { continue };
        let folder = tile.partial_folder();
        for name in disk.list(&folder).unwrap_or_default() {
            let _ = disk.remove(&format!("{folder}/{name}"));
        }
        let _ = std::fs::remove_dir(dir.join(&folder));
    }
}
