//! A log's files, in one folder or, where segments are archived, in several (decision 0025).
//!
//! Nothing in an archive is believed: what is read of it is verified from genesis on, and must lead to the log's edge.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use anyhow::Result;
use base::Sequence;
use chain::{
    ChainPoint, LogFolder, LogSource, VerifyOptions,
    log_edge::{EDGE_BYTES_MAX, EDGE_FILE, LogEdge},
    segment_first,
    tree::Edge,
};
use durable::{RealDisk, read_small};

use crate::exit::{DAMAGED, Failure, USAGE};

/// Where entries are read from.
pub struct LogFiles {
    folders: Vec<LogFolder>,
    pub edge: Option<LogEdge>,
    /// The first entry that can be read.
    pub first: Sequence,
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
        let mut files =
            Self { folders: folders.iter().map(LogFolder::new).collect(), edge, first: Sequence(0) };
        if let Some(edge) = &files.edge {
            let oldest =
                files.names().ok().and_then(|names| names.iter().filter_map(|n| segment_first(n)).min());
            if oldest != Some(Sequence(0)) {
                files.first = edge.point().next_sequence;
            }
        }
        Ok(files)
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

    /// That what lies before cannot be read here.
    fn archived(&self) -> Failure {
        let parts = self.edge.as_ref().map(LogEdge::parts).unwrap_or_default();
        let places: Vec<&str> = parts.iter().map(|part| part.place.as_str()).collect();
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
                format!("{}\n", parts.join("\n"))
            }
            _ => String::new(),
        }
    }
}

impl LogSource for LogFiles {
    type Segment = File;

    fn names(&self) -> io::Result<Vec<String>> {
        let mut all = BTreeSet::new();
        for folder in &self.folders {
            all.extend(folder.names()?);
        }
        Ok(all.into_iter().collect())
    }

    /// The first folder that has it: where two have it, either is verified like the other.
    fn open(&self, name: &str) -> io::Result<File> {
        let mut found = Err(io::ErrorKind::NotFound.into());
        for folder in &self.folders {
            found = folder.open(name);
            match &found {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                _ => break,
            }
        }
        found
    }
}
