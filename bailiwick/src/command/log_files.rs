//! A log's files, in one folder or, where segments are archived, in several (decision 0025).
//!
//! Nothing in an archive is believed: what is read of it is verified from genesis on, and must lead to the log's edge.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use base::Sequence;
use chain::{
    Cause, ChainPoint, Fault, LogFolder, LogSource, ReadAt, VerifyOptions,
    log_edge::{EDGE_BYTES_MAX, EDGE_FILE, LogEdge},
    segment_first,
    tree::Edge,
};
use durable::{RealDisk, read_small};

use super::log_writer;
use crate::exit::{DAMAGED, Failure, USAGE};

/// How often a group at the log's end that is not whole is looked at again: a node may be writing it, on a busy machine.
const SETTLE_TRIES: u32 = 100;
/// The same where no node is seen to have the log open: what a power cut has left stays as it is. Not none, because a node in
/// another pid namespace is not seen.
const SETTLE_TRIES_ALONE: u32 = 3;
const SETTLE_PAUSE: Duration = Duration::from_millis(20);
/// How often a log is read anew that is archived or brought back meanwhile.
const MOVES_MAX: u32 = 4;

/// Where entries are read from.
pub struct LogFiles {
    paths: Vec<PathBuf>,
    folders: Vec<LogFolder>,
    pub edge: Option<LogEdge>,
    /// The first entry that can be read.
    pub first: Sequence,
    /// Segments before the edge that lie beside it and are not read.
    leftovers: usize,
}

/// A segment that a node may be writing.
pub struct Written {
    file: File,
    /// What its writer holds.
    lock: PathBuf,
}

impl ReadAt for Written {
    fn size_bytes(&self) -> io::Result<u64> {
        self.file.size_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        ReadAt::read_exact_at(&self.file, offset, buffer)
    }

    fn settle(&self, tries: u32) -> bool {
        let again = tries < SETTLE_TRIES_ALONE || tries < SETTLE_TRIES && log_writer::is_held(&self.lock);
        if again {
            std::thread::sleep(SETTLE_PAUSE);
        }
        again
    }
}

/// The edge in a log's folder; None if nothing is archived.
pub fn edge_of(folder: &Path) -> Result<Option<LogEdge>> {
    // A folder that is not there is no reason to make it.
    if !folder.join(EDGE_FILE).is_file() {
        return Ok(None);
    }
    let damaged = |why: &dyn std::fmt::Display| {
        Failure::new(DAMAGED, format!("the log's edge in {} does not hold: {why}", folder.display()))
    };
    let disk = RealDisk::open(folder)?;
    let bytes = read_small(&disk, EDGE_FILE, EDGE_BYTES_MAX).map_err(|error| damaged(&error))?;
    Ok(bytes.map(|bytes| LogEdge::read(&bytes, None)).transpose().map_err(|error| damaged(&error))?)
}

impl LogFiles {
    /// A log from where it begins on, with these archives of it.
    pub fn open(folder: &Path, archives: &[PathBuf]) -> Result<Self> {
        let folders: Vec<PathBuf> =
            std::iter::once(folder.to_owned()).chain(archives.iter().cloned()).collect();
        Self::of(&folders)
    }

    /// One log in these folders.
    pub fn of(folders: &[PathBuf]) -> Result<Self> {
        let mut edge: Option<LogEdge> = None;
        for found in folders.iter().map(|folder| edge_of(folder)) {
            let found = found?;
            let is_newer = |found: &LogEdge| {
                edge.as_ref().is_none_or(|edge| edge.point().next_sequence < found.point().next_sequence)
            };
            if found.as_ref().is_some_and(is_newer) {
                edge = found;
            }
        }
        let paths = folders.to_vec();
        let folders = folders.iter().map(LogFolder::new).collect();
        let mut files = Self { paths, folders, edge, first: Sequence(0), leftovers: 0 };
        if let Some(edge) = &files.edge {
            let begin = edge.point().next_sequence;
            let names = files.names().unwrap_or_default();
            let mut before: Vec<Sequence> = names.iter().filter_map(|name| segment_first(name)).collect();
            before.retain(|first| *first < begin);
            if !before.contains(&Sequence(0)) {
                files.first = begin;
                files.leftovers = before.len();
            }
        }
        Ok(files)
    }

    /// Reads with `read`, and once more if the log was archived or brought back meanwhile: then what was missing is no
    /// damage.
    pub fn reading<T>(
        open: impl Fn() -> Result<Self>,
        mut read: impl FnMut(&Self) -> Result<T, Fault>,
    ) -> Result<(Self, Result<T, Fault>)> {
        let mut moves = 0;
        loop {
            let files = open()?;
            let outcome = read(&files);
            if outcome.is_ok() || moves == MOVES_MAX || !files.has_moved()? {
                return Ok((files, outcome));
            }
            moves += 1;
        }
    }

    fn has_moved(&self) -> Result<bool> {
        let now = Self::of(&self.paths)?;
        Ok((now.first, &now.edge) != (self.first, &self.edge))
    }

    /// A log from genesis on: what is archived is read where it was taken to, if it is there.
    pub fn whole(folder: &Path, archives: &[PathBuf]) -> Result<Self> {
        let files = Self::open(folder, archives)?;
        let Some(edge) = files.edge.as_ref().filter(|_| files.first > Sequence(0)) else { return Ok(files) };
        let mut places: Vec<PathBuf> = archives.to_vec();
        places.extend(
            edge.parts().iter().map(|part| PathBuf::from(&part.place)).filter(|place| place.is_dir()),
        );
        let files = Self::open(folder, &places)?;
        if files.first > Sequence(0) { Err(files.archived().into()) } else { Ok(files) }
    }

    /// The same from an entry on: only what that needs.
    pub fn reaching(folder: &Path, archives: &[PathBuf], from: Sequence) -> Result<Self> {
        let files = Self::open(folder, archives)?;
        if files.first <= from { Ok(files) } else { Self::whole(folder, archives) }
    }

    fn places(&self) -> Vec<&str> {
        let parts = self.edge.as_ref().map(LogEdge::parts).unwrap_or_default();
        parts.iter().map(|part| part.place.as_str()).collect()
    }

    /// What a fault means here: a gap before the edge is what a restore leaves that did not come to its end.
    pub fn fault(&self, fault: &Fault) -> Failure {
        match (&self.edge, &fault.cause) {
            (Some(edge), Cause::SegmentGap { expected, found })
                if *expected < edge.point().next_sequence && *found <= edge.point().next_sequence =>
            {
                let text = format!(
                    "entries {expected} to {} are archived and not all of what lies before them is: a restore was cut short, or an \
                     archive is not whole; run `bailiwick log restore {}` (again), or name the archive's folder too",
                    found.0.saturating_sub(1),
                    self.places().join(" ")
                );
                Failure::new(USAGE, text)
            }
            _ => Failure::damaged(fault),
        }
    }

    /// That what lies before cannot be read here.
    fn archived(&self) -> Failure {
        let places = self.places();
        let last = Sequence(self.first.0.saturating_sub(1));
        let text = format!(
            "entries 0 to {last} are archived in {}, which cannot be read here: make it readable there again, or bring it back with `bailiwick log restore DIR`",
            places.join(" and ")
        );
        Failure::new(USAGE, text)
    }

    /// From where it can be read on.
    pub fn options(&self) -> VerifyOptions {
        match self.begin() {
            ChainPoint::GENESIS => VerifyOptions::default(),
            begin => VerifyOptions::from_edge(begin),
        }
    }

    fn begin(&self) -> ChainPoint {
        match &self.edge {
            Some(edge) if self.first > Sequence(0) => edge.point(),
            _ => ChainPoint::GENESIS,
        }
    }

    /// The tree over what lies before.
    pub fn tree(&self) -> Edge {
        let edge = self.edge.as_ref().filter(|_| self.first > Sequence(0));
        edge.and_then(LogEdge::tree).unwrap_or_default()
    }

    /// What people are told who might miss something. Empty if nothing is missing.
    pub fn note(&self) -> String {
        match &self.edge {
            Some(edge) if self.first > Sequence(0) => {
                let parts: Vec<String> = edge
                    .parts()
                    .iter()
                    .map(|part| {
                        format!("entries {} to {} are archived in {}", part.from, part.to, part.place)
                    })
                    .collect();
                let mut note = format!("{}\n", parts.join("\n"));
                if self.leftovers > 0 {
                    note.push_str(&format!(
                        "beside the edge lie {} segments from before it, which are not read: a restore or an archiving was cut \
                         short; `bailiwick log restore {}` goes on with the restore, a start of the node removes them\n",
                        self.leftovers,
                        self.places().join(" ")
                    ));
                }
                note
            }
            _ => String::new(),
        }
    }
}

impl LogSource for LogFiles {
    type Segment = Written;

    fn names(&self) -> io::Result<Vec<String>> {
        let mut all = BTreeSet::new();
        for folder in &self.folders {
            all.extend(folder.names()?);
        }
        Ok(all.into_iter().collect())
    }

    /// The first folder that has it: where two have it, either is verified like the other.
    fn open(&self, name: &str) -> io::Result<Written> {
        let mut found = Err(io::ErrorKind::NotFound.into());
        for (folder, path) in self.folders.iter().zip(&self.paths) {
            found = folder.open(name).map(|file| Written { file, lock: log_writer::lock_of(path) });
            match &found {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                _ => break,
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use durable::{Disk, RealDisk};

    use super::*;

    /// A group at the end that is not whole is looked at again and again only while somebody is writing it.
    #[test]
    fn a_torn_tail_that_nobody_writes_is_given_up_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("segment")).unwrap();
        let lock = log_writer::lock_of(&folder.path().join("log"));
        let written = Written { file, lock };
        let tries = || (0..).take_while(|tries| written.settle(*tries)).count();
        assert_eq!(tries(), SETTLE_TRIES_ALONE as usize);
        let held = RealDisk::open(folder.path()).unwrap().lock(axiom::store::LOCK_FILE).unwrap();
        assert_eq!(tries(), SETTLE_TRIES as usize);
        drop(held);
        assert_eq!(tries(), SETTLE_TRIES_ALONE as usize);
    }
}
