//! C2SP tiles (`tlog-tiles`): the tree and its entries as files that any web server can publish. Paths and bytes only.

use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::{
    checkpoint::decimal,
    codec::array_at,
    tree::{Edge, NodeId, Nodes, TreeHash},
};

/// Hashes of a full tile, entries of a full bundle.
pub const TILE_WIDTH: usize = 256;
/// Levels of the tree within one tile.
const TILE_LEVELS: u8 = 8;
/// Levels of tiles that a tree of at most 2^63 leaves can have.
pub const TILE_LEVEL_MAX: u8 = 7;
/// Bytes of the largest file: a bundle of the largest entries.
pub const TILE_BYTES_MAX: usize = TILE_WIDTH * (2 + u16::MAX as usize);

const HASH_BYTES: usize = 32;
const PATH_DIGITS: u64 = 1000;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not the path of a tile or an entry bundle")]
pub struct TilePathError(String);

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TileKind {
    /// The entries themselves.
    Entries,
    /// Hashes of the subtrees of `256^level` leaves.
    Hashes { level: u8 },
}

/// One file of a published log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tile {
    pub kind: TileKind,
    pub index: u64,
    /// 256 unless the tile is the last of its level.
    pub width: usize,
}

impl Tile {
    /// The file at `index` as a tree of `size` leaves has it; None where it has none.
    #[must_use]
    pub fn of_tree(kind: TileKind, index: u64, size: u64) -> Option<Self> {
        let level = match kind {
            TileKind::Entries => 0,
            TileKind::Hashes { level } => level.min(TILE_LEVEL_MAX),
        };
        let hashes = size >> (level * TILE_LEVELS);
        let from = index.checked_mul(TILE_WIDTH as u64)?;
        let left = hashes.checked_sub(from).filter(|left| *left > 0)?;
        let width = usize::try_from(left).unwrap_or(TILE_WIDTH).min(TILE_WIDTH);
        Some(Self { kind, index, width })
    }

    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }

    /// Of a partial tile: the folder that holds it beside others of its index, and that the full tile replaces.
    #[must_use]
    pub fn partial_folder(&self) -> String {
        format!("{}.p", Self { width: TILE_WIDTH, ..*self })
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Entries => f.write_str("tile/entries")?,
            TileKind::Hashes { level } => write!(f, "tile/{level}")?,
        }
        let mut groups = vec![self.index % PATH_DIGITS];
        let mut rest = self.index / PATH_DIGITS;
        while rest > 0 {
            groups.push(rest % PATH_DIGITS);
            rest /= PATH_DIGITS;
        }
        for (at, group) in groups.iter().enumerate().rev() {
            write!(f, "/{}{group:03}", if at > 0 { "x" } else { "" })?;
        }
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

impl FromStr for Tile {
    type Err = TilePathError;

    fn from_str(path: &str) -> Result<Self, TilePathError> {
        let parse = || {
            let (kind, rest) = path.strip_prefix("tile/")?.split_once('/')?;
            let kind = match kind {
                "entries" => TileKind::Entries,
                level => TileKind::Hashes {
                    level: u8::try_from(decimal(level)?).ok().filter(|level| *level < 64)?,
                },
            };
            let (index, width) = match rest.split_once(".p/") {
                Some((index, width)) => (index, usize::try_from(decimal(width)?).ok()?),
                None => (rest, TILE_WIDTH),
            };
            let index: String = index.split('/').map(|group| group.trim_start_matches('x')).collect();
            let digits = index.trim_start_matches('0');
            let index = if digits.is_empty() { 0 } else { decimal(digits)? };
            Some(Self { kind, index, width })
        };
        let refuse = || TilePathError(path.chars().take(80).collect());
        // One path for one tile: what is written back must be what was read.
        parse().filter(|tile| tile.width > 0 && tile.to_string() == path).ok_or_else(refuse)
    }
}

fn tile_bytes(hashes: &[TreeHash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// The hashes in a tile's bytes; None unless there are exactly `width`.
#[must_use]
pub fn tile_hashes(bytes: &[u8], width: usize) -> Option<Vec<TreeHash>> {
    let hashes = bytes.chunks(HASH_BYTES).map(|bytes| array_at(bytes, 0).map(TreeHash));
    hashes.collect::<Option<Vec<_>>>().filter(|hashes| hashes.len() == width)
}

/// The entries in a bundle's bytes, each as it is hashed; None unless there are exactly `width`.
#[must_use]
pub fn bundle_entries(mut bytes: &[u8], width: usize) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (entry, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        entries.push(entry);
        bytes = rest;
    }
    (bytes.is_empty() && entries.len() == width).then_some(entries)
}

/// The nodes of a published tree of `size` leaves, out of its tiles. What `read` gives is believed: whoever uses a proof
/// made of it checks the proof.
pub struct TileNodes<R> {
    pub size: u64,
    pub read: R,
}

impl<R: Fn(&Tile) -> Option<Vec<u8>>> Nodes for TileNodes<R> {
    fn node(&self, id: NodeId) -> Option<TreeHash> {
        let (level, within) = (id.level / TILE_LEVELS, id.level % TILE_LEVELS);
        let first = id.index.checked_shl(u32::from(within))?;
        let tile = Tile::of_tree(TileKind::Hashes { level }, first / TILE_WIDTH as u64, self.size)?;
        let mut hashes = tile_hashes(&(self.read)(&tile)?, tile.width)?;
        let at = usize::try_from(first % TILE_WIDTH as u64).ok()?;
        hashes = hashes.get(at..at.checked_add(1 << within)?)?.to_vec();
        while hashes.len() > 1 {
            hashes = hashes.chunks_exact(2).filter_map(pair).collect();
        }
        hashes.first().copied()
    }
}

fn pair(hashes: &[TreeHash]) -> Option<TreeHash> {
    Some(TreeHash::node(hashes.first()?, hashes.get(1)?))
}

/// Makes the files of a growing log, each full one as soon as it is full.
#[derive(Clone, Debug, Default)]
pub struct TileBuilder {
    edge: Edge,
    /// The hashes of each level's last tile, while it is not full.
    rows: Vec<Vec<TreeHash>>,
    bundle: Vec<u8>,
}

impl TileBuilder {
    /// Goes on where a published log of `published` leaves has its last full bundle: the next leaf is `size()`. None where
    /// its tiles are not there.
    pub fn resume(published: u64, read: impl Fn(&Tile) -> Option<Vec<u8>>) -> Option<Self> {
        let size = published - published % TILE_WIDTH as u64;
        let mut rows = vec![Vec::new()];
        for level in 1..=TILE_LEVEL_MAX {
            let hashes = size >> (level * TILE_LEVELS);
            if hashes == 0 {
                break;
            }
            let kind = TileKind::Hashes { level };
            rows.push(match Tile::of_tree(kind, hashes / TILE_WIDTH as u64, size) {
                Some(tile) => tile_hashes(&read(&tile)?, tile.width)?,
                None => Vec::new(),
            });
        }
        let edge = Edge::from_nodes(size, &TileNodes { size, read })?;
        Some(Self { edge, rows, bundle: Vec::new() })
    }

    /// Leaves so far.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.edge.size()
    }

    #[must_use]
    pub fn root(&self) -> TreeHash {
        self.edge.root()
    }

    /// Takes the next leaf, in pieces, and gives out the files that it fills. A leaf has at most 65 535 bytes.
    pub fn push(&mut self, leaf: &[&[u8]], mut full: impl FnMut(Tile, Vec<u8>)) {
        let length = leaf.iter().map(|part| part.len()).fold(0, usize::saturating_add);
        self.bundle.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        leaf.iter().for_each(|part| self.bundle.extend_from_slice(part));
        let rows = &mut self.rows;
        let index = self.edge.size() / TILE_WIDTH as u64;
        self.edge.push(TreeHash::leaf_of(leaf), |id, hash| {
            if !id.level.is_multiple_of(TILE_LEVELS) {
                return;
            }
            let level = id.level / TILE_LEVELS;
            while rows.len() <= usize::from(level) {
                rows.push(Vec::new());
            }
            let Some(row) = rows.get_mut(usize::from(level)) else { return };
            row.push(hash);
            if row.len() == TILE_WIDTH {
                let kind = TileKind::Hashes { level };
                let tile = Tile { kind, index: id.index / TILE_WIDTH as u64, width: TILE_WIDTH };
                full(tile, tile_bytes(row));
                row.clear();
            }
        });
        if self.edge.size().is_multiple_of(TILE_WIDTH as u64) {
            let tile = Tile { kind: TileKind::Entries, index, width: TILE_WIDTH };
            full(tile, std::mem::take(&mut self.bundle));
        }
    }

    /// The files that are not full: what a checkpoint of this size needs beside the full ones.
    pub fn partial(&self, mut partial: impl FnMut(Tile, Vec<u8>)) {
        let size = self.edge.size();
        for (level, row) in (0..=TILE_LEVEL_MAX).zip(&self.rows) {
            let index = size >> (level * TILE_LEVELS) >> TILE_LEVELS;
            if !row.is_empty() {
                let kind = TileKind::Hashes { level };
                partial(Tile { kind, index, width: row.len() }, tile_bytes(row));
                if level == 0 {
                    partial(Tile { kind: TileKind::Entries, index, width: row.len() }, self.bundle.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{consistency_proof, inclusion_proof, verify_consistency, verify_inclusion};
    use std::collections::BTreeMap;

    fn leaf(n: u64) -> Vec<u8> {
        n.to_be_bytes()[5..].repeat(1 + n as usize % 3)
    }

    type Files = BTreeMap<String, Vec<u8>>;

    fn grow(builder: &mut TileBuilder, to: u64, files: &mut Files) {
        while builder.size() < to {
            let leaf = leaf(builder.size());
            let (head, tail) = leaf.split_at(1);
            builder.push(&[head, tail], |tile, bytes| {
                files.insert(tile.to_string(), bytes);
            });
        }
        builder.partial(|tile, bytes| {
            files.insert(tile.to_string(), bytes);
        });
    }

    fn read(files: &Files) -> impl Fn(&Tile) -> Option<Vec<u8>> + '_ {
        |tile| files.get(&tile.to_string()).cloned()
    }

    fn root(size: u64) -> TreeHash {
        let mut edge = Edge::default();
        (0..size).for_each(|n| edge.push(TreeHash::leaf(&leaf(n)), |_, _| {}));
        edge.root()
    }

    #[test]
    fn paths_are_those_of_the_specification() {
        let tile = |level, index, width| Tile { kind: TileKind::Hashes { level }, index, width };
        for (tile, path) in [
            (tile(0, 0, 256), "tile/0/000"),
            (tile(0, 1_234_067, 256), "tile/0/x001/x234/067"),
            (tile(2, 0, 1), "tile/2/000.p/1"),
            (tile(63, 999, 255), "tile/63/999.p/255"),
            (Tile { kind: TileKind::Entries, index: 1000, width: 7 }, "tile/entries/x001/000.p/7"),
        ] {
            assert_eq!(tile.to_string(), path);
            assert_eq!(path.parse(), Ok(tile));
        }
        for bad in [
            "",
            "tile/0",
            "tile/0/",
            "tile/0/0",
            "tile/00/000",
            "tile/64/000",
            "tile/0/0000",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/x000/000",
            "tile/0/001/000",
            "tile/0/x001/x000",
            "tile/0/../000",
            "/tile/0/000",
            "tile/x/000",
            "tile/0/xx01/000",
            "tile/0/18446744073709551616",
        ] {
            assert!(bad.parse::<Tile>().is_err(), "{bad}");
        }
        assert_eq!(tile(0, 5, 3).partial_folder(), "tile/0/005.p");
    }

    /// The examples of the specification: 70 000 leaves, and 256.
    #[test]
    fn a_tree_has_the_files_of_the_specification() {
        let mut builder = TileBuilder::default();
        let mut files = Files::new();
        grow(&mut builder, 256, &mut files);
        let names: Vec<_> = files.keys().map(String::as_str).collect();
        assert_eq!(names, ["tile/0/000", "tile/1/000.p/1", "tile/entries/000"]);
        let mut files = Files::new();
        grow(&mut TileBuilder::default(), 70_000, &mut files);
        let count = |prefix: &str, partial: bool| {
            files.keys().filter(|name| name.starts_with(prefix) && name.contains(".p/") == partial).count()
        };
        assert_eq!(
            (count("tile/0/", false), count("tile/1/", false), count("tile/entries/", false)),
            (273, 1, 273)
        );
        for name in ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1", "tile/entries/273.p/112"] {
            assert!(files.contains_key(name), "{name}");
        }
        assert_eq!(files.len(), 273 + 1 + 273 + 4);
        assert_eq!(files["tile/0/000"].len(), 8192);
        let bundle = bundle_entries(&files["tile/entries/273.p/112"], 112).unwrap();
        assert_eq!(bundle[111], leaf(69_999));
        let hashes = tile_hashes(&files["tile/0/273.p/112"], 112).unwrap();
        assert_eq!(hashes[111], TreeHash::leaf(bundle[111]));
    }

    /// Grown at once or with a stop at any size: the same files. Proofs out of the files hold.
    #[test]
    fn a_resumed_log_has_the_same_files_and_its_tiles_prove() {
        let mut whole = Files::new();
        let mut at_once = TileBuilder::default();
        grow(&mut at_once, 66_500, &mut whole);
        for stop in [0, 1, 255, 256, 257, 65_535, 65_536, 65_537, 66_000, 66_500] {
            let mut files = Files::new();
            grow(&mut TileBuilder::default(), stop, &mut files);
            let mut resumed = TileBuilder::resume(stop, read(&files)).unwrap();
            assert_eq!(resumed.size(), stop - stop % 256);
            grow(&mut resumed, 66_500, &mut files);
            assert_eq!(resumed.root(), at_once.root());
            assert!(whole.iter().all(|(name, bytes)| files.get(name) == Some(bytes)), "{stop}");
        }
        let nodes = TileNodes { size: 66_500, read: read(&whole) };
        assert_eq!(at_once.root(), root(66_500));
        for index in [0, 255, 256, 65_535, 65_536, 66_499] {
            let proof = inclusion_proof(&nodes, index, 66_500).unwrap();
            assert!(verify_inclusion(TreeHash::leaf(&leaf(index)), index, 66_500, &proof, at_once.root()));
        }
        for old in [1, 256, 65_536, 66_001, 66_500] {
            let proof = consistency_proof(&nodes, old, 66_500).unwrap();
            assert!(verify_consistency(old, root(old), 66_500, at_once.root(), &proof));
        }
        assert!(TileBuilder::resume(66_500, |_| None).is_none());
        assert_eq!(
            inclusion_proof(&TileNodes { size: 66_500, read: |_: &Tile| Some(vec![0; 31]) }, 0, 66_500),
            None
        );
    }

    #[test]
    fn bytes_that_are_no_bundle_or_tile_are_refused() {
        for (bytes, width) in [(&[][..], 1), (&[0][..], 1), (&[0, 1], 1), (&[0, 1, 7, 0], 1), (&[0, 1, 7], 2)]
        {
            assert_eq!(bundle_entries(bytes, width), None, "{bytes:?}");
        }
        assert_eq!(bundle_entries(&[0, 1, 7, 0, 0], 2), Some(vec![&[7][..], &[]]));
        assert_eq!(tile_hashes(&[0; 63], 2), None);
        assert_eq!(tile_hashes(&[0; 96], 2), None);
        assert!(tile_hashes(&[0; 64], 2).is_some());
        let largest = vec![1; u16::MAX as usize];
        let mut builder = TileBuilder::default();
        builder.push(&[&largest], |_, _| {});
        builder.partial(|tile, bytes| {
            if tile.kind == TileKind::Entries {
                assert_eq!(bundle_entries(&bytes, 1), Some(vec![&largest[..]]));
            }
        });
    }
}
