//! A unit as it is written: its name, its settings in order, drop-ins joined.

mod parse;
mod specifier;
pub(crate) mod value;
pub(crate) mod words;

pub(crate) use parse::{Setting, UnitError, parse};
pub(crate) use specifier::{Names, UnitName, expand};

use crate::{keys::canonical, report::Place};

/// A unit with its drop-ins, in the order in which systemd reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub name: UnitName,
    /// The unit's own file.
    pub file: String,
    pub settings: Vec<Setting>,
}

impl Unit {
    /// Place of the unit as a whole.
    pub(crate) fn place(&self) -> Place {
        Place { file: self.file.clone(), line: 0 }
    }

    /// Name of the service that it makes: Quadlet's `x.container` is `x.service`.
    pub(crate) fn service_name(&self) -> String {
        format!("{}.service", self.name.stem())
    }

    /// Every setting of a key, under any of its names.
    pub(crate) fn every<'a>(&'a self, section: &'a str, key: &'a str) -> impl Iterator<Item = &'a Setting> {
        self.settings.iter().filter(move |one| one.section == section && canonical(&one.key) == key)
    }

    /// What holds of a list: an empty setting takes back what stands before it.
    pub(crate) fn list(&self, section: &str, key: &str) -> Vec<Setting> {
        let mut list = Vec::new();
        for one in self.every(section, key) {
            if one.value.is_empty() {
                list.clear();
            } else {
                list.push(one.clone());
            }
        }
        list
    }

    /// What holds of a single value: the last; `None` if that is empty, which stands for the default.
    pub(crate) fn last(&self, section: &str, key: &str) -> Option<Setting> {
        self.every(section, key).last().filter(|one| !one.value.is_empty()).cloned()
    }
}
