//! What became of each setting.

use std::fmt;

use serde::Serialize;

use crate::limits::SHOWN_BYTES_MAX;

/// In rising order of what whoever imports has to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It changes nothing here, or nothing at all.
    Ignored,
    /// The manifest says the same.
    Mapped,
    /// The manifest says nearly the same; `how` says what is different.
    Approximated,
    /// The manifest cannot say it, and the service will behave, or be protected, otherwise than its unit.
    Refused,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ignored => "ignored",
            Self::Mapped => "mapped",
            Self::Approximated => "approximated",
            Self::Refused => "refused",
        })
    }
}

/// Where a setting stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    pub file: String,
    /// From 1; 0 if the file as a whole is meant.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        Ok(())
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    #[serde(flatten)]
    pub place: Place,
    /// Empty if no single key is meant.
    pub key: String,
    /// Shortened to `SHOWN_BYTES_MAX`.
    pub value: String,
    pub fate: Fate,
    pub how: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub entries: Vec<Entry>,
}

impl Report {
    pub(crate) fn add(&mut self, place: &Place, key: &str, value: &str, fate: Fate, how: impl Into<String>) {
        let entry =
            Entry { place: place.clone(), key: key.to_owned(), value: shown(value), fate, how: how.into() };
        if !self.entries.contains(&entry) {
            self.entries.push(entry);
        }
    }

    #[must_use]
    pub fn count(&self, fate: Fate) -> usize {
        self.entries.iter().filter(|entry| entry.fate == fate).count()
    }

    /// Refused settings, but for those whose key the person has accepted.
    pub fn refused<'a>(&'a self, accepted: &'a [String]) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(|entry| entry.fate == Fate::Refused && !accepted.contains(&entry.key))
    }
}

fn shown(value: &str) -> String {
    if value.len() <= SHOWN_BYTES_MAX {
        return value.to_owned();
    }
    let end = (0..=SHOWN_BYTES_MAX).rev().find(|&at| value.is_char_boundary(at)).unwrap_or(0);
    format!("{}…", value.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_shown_in_part() {
        assert_eq!(shown(&"a".repeat(SHOWN_BYTES_MAX)), "a".repeat(SHOWN_BYTES_MAX));
        assert_eq!(shown(&"a".repeat(SHOWN_BYTES_MAX + 1)), format!("{}…", "a".repeat(SHOWN_BYTES_MAX)));
        assert_eq!(shown(&"ä".repeat(SHOWN_BYTES_MAX)), format!("{}…", "ä".repeat(SHOWN_BYTES_MAX / 2)));
    }

    #[test]
    fn what_is_accepted_is_no_longer_refused() {
        let mut report = Report::default();
        report.add(&Place::default(), "NoExecPaths", "/", Fate::Refused, "why");
        report.add(&Place::default(), "Nice", "1", Fate::Approximated, "how");
        assert_eq!(report.refused(&[]).count(), 1);
        assert_eq!(report.refused(&["NoExecPaths".to_owned()]).count(), 0);
    }
}
