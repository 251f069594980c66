//! Evidence as text: a keyword and its value on each line, in the order in which a reader needs them.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    EVIDENCE_BYTES_MAX, EVIDENCE_ENTRIES_MAX, EVIDENCE_MAGIC, EVIDENCE_WITNESSES_MAX, Evidence,
    EvidenceError, Older,
};
use crate::{checkpoint::decimal, tree::PROOF_HASHES_MAX};

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{EVIDENCE_MAGIC}")?;
        writeln!(f, "log {}", self.log)?;
        self.witnesses.iter().try_for_each(|witness| writeln!(f, "witness {witness}"))?;
        if let Some(older) = &self.older {
            writeln!(f, "old {} {}", older.size, older.root)?;
            older.consistency.iter().try_for_each(|hash| writeln!(f, "consistency {hash}"))?;
        }
        for (index, leaf) in &self.entries {
            writeln!(f, "entry {index} {}", STANDARD.encode(leaf))?;
        }
        self.tree.iter().try_for_each(|hash| writeln!(f, "tree {hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// The lines before the empty one, read in order.
struct Lines<'t> {
    lines: std::iter::Peekable<std::str::Split<'t, char>>,
    number: usize,
}

impl<'t> Lines<'t> {
    /// The value of the next line if it begins with this keyword.
    fn next(&mut self, keyword: &str) -> Option<&'t str> {
        let value = self.lines.peek()?.strip_prefix(keyword)?.strip_prefix(' ')?;
        self.lines.next();
        self.number = self.number.saturating_add(1);
        Some(value)
    }

    /// The line after the one that was read last does not belong here.
    const fn unexpected(&self) -> EvidenceError {
        EvidenceError::Form { line: self.number.saturating_add(1) }
    }

    /// The line that was read last does not have the form.
    const fn malformed(&self) -> EvidenceError {
        EvidenceError::Form { line: self.number }
    }

    /// All lines with this keyword, at most `max`.
    fn all<T>(
        &mut self,
        keyword: &str,
        max: usize,
        read: impl Fn(&'t str) -> Option<T>,
    ) -> Result<Vec<T>, EvidenceError> {
        let mut values = Vec::new();
        while let Some(value) = self.next(keyword) {
            if values.len() >= max {
                return Err(EvidenceError::TooLarge);
            }
            values.push(read(value).ok_or_else(|| self.malformed())?);
        }
        Ok(values)
    }
}

fn hash<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn entry(text: &str) -> Option<(u64, Vec<u8>)> {
    let (index, leaf) = text.split_once(' ')?;
    Some((decimal(index)?, STANDARD.decode(leaf).ok()?))
}

impl FromStr for Evidence {
    type Err = EvidenceError;

    fn from_str(text: &str) -> Result<Self, EvidenceError> {
        if text.len() > EVIDENCE_BYTES_MAX {
            return Err(EvidenceError::TooLarge);
        }
        let (head, note) = text.split_once("\n\n").ok_or(EvidenceError::Form { line: 0 })?;
        let mut lines = Lines { lines: head.split('\n').peekable(), number: 0 };
        if lines.lines.next() != Some(EVIDENCE_MAGIC) {
            return Err(lines.unexpected());
        }
        lines.number = 1;
        let log = lines.next("log").ok_or_else(|| lines.unexpected())?;
        let log = log.parse().map_err(|_| lines.malformed())?;
        let witnesses = lines.all("witness", EVIDENCE_WITNESSES_MAX, hash)?;
        let older = match lines.next("old") {
            Some(old) => {
                let (size, root) = old.split_once(' ').ok_or_else(|| lines.malformed())?;
                let size = decimal(size).ok_or_else(|| lines.malformed())?;
                let root = root.parse().map_err(|_| lines.malformed())?;
                Some(Older { size, root, consistency: lines.all("consistency", PROOF_HASHES_MAX, hash)? })
            }
            None => None,
        };
        let entries = lines.all("entry", EVIDENCE_ENTRIES_MAX, entry)?;
        // For each entry at most one path: more hashes than this no proof can need.
        let hashes_max = entries.len().saturating_mul(PROOF_HASHES_MAX);
        let tree = lines.all("tree", hashes_max, hash)?;
        if lines.lines.peek().is_some() || entries.is_empty() {
            return Err(lines.unexpected());
        }
        Ok(Self { log, witnesses, older, entries, tree, checkpoint: note.parse()? })
    }
}
