//! The node's configuration over time: which manifest each service of the user had after each change.
//!
//! Pure. Every change is a generation of its own, with a number that only grows; what the log records of a registration is
//! the hash of its manifest, and here is which texts belonged together. The oldest changes are folded into one base.

use std::collections::{BTreeMap, VecDeque};

use base::Hash;
use serde::{Deserialize, Serialize};

/// Changes that are kept singly; older generations cannot be gone back to.
pub const CHANGES_MAX: usize = 1_000;

/// Which manifest a service has, by its text's hash.
pub type Manifests = BTreeMap<String, Hash>;

/// One change of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    pub number: u64,
    /// Wall clock, milliseconds since 1970; for people.
    pub time_ms: u64,
    pub service: String,
    /// None: it was taken away.
    pub manifest: Option<Hash>,
}

/// Everything that is kept. On disk it is this, as JSON (`docs/format.md`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generations {
    /// What all changes before the first one came to.
    base: Manifests,
    /// Number of that state; 0 is a node without services of the user.
    base_number: u64,
    changes: VecDeque<Change>,
}

impl Generations {
    /// The number of the state that is in force.
    #[must_use]
    pub fn current(&self) -> u64 {
        self.changes.back().map_or(self.base_number, |change| change.number)
    }

    /// The oldest first.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter()
    }

    /// Takes a change in. False if there is none: it is as it was.
    pub fn add(&mut self, time_ms: u64, service: &str, manifest: Option<Hash>) -> bool {
        if self.in_force().get(service).copied() == manifest {
            return false;
        }
        let number = self.current().saturating_add(1);
        self.changes.push_back(Change { number, time_ms, service: service.to_owned(), manifest });
        while self.changes.len() > CHANGES_MAX {
            if let Some(oldest) = self.changes.pop_front() {
                self.base_number = oldest.number;
                apply(&mut self.base, &oldest);
            }
        }
        true
    }

    /// The state after a change; None if it is not kept or is not there yet.
    #[must_use]
    pub fn at(&self, number: u64) -> Option<Manifests> {
        if number < self.base_number || number > self.current() {
            return None;
        }
        let mut state = self.base.clone();
        self.changes
            .iter()
            .take_while(|change| change.number <= number)
            .for_each(|change| apply(&mut state, change));
        Some(state)
    }

    #[must_use]
    pub fn in_force(&self) -> Manifests {
        self.at(self.current()).unwrap_or_default()
    }

    /// Texts that some generation still needs.
    #[must_use]
    pub fn needs(&self, manifest: &Hash) -> bool {
        self.base
            .values()
            .chain(self.changes.iter().filter_map(|change| change.manifest.as_ref()))
            .any(|one| one == manifest)
    }
}

fn apply(state: &mut Manifests, change: &Change) {
    match change.manifest {
        Some(manifest) => state.insert(change.service.clone(), manifest),
        None => state.remove(&change.service),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> Hash {
        Hash::of(&n.to_be_bytes())
    }

    #[test]
    fn each_change_is_a_generation_and_what_changes_nothing_is_none() {
        let mut all = Generations::default();
        assert_eq!((all.current(), all.at(0)), (0, Some(Manifests::new())));
        assert!(all.add(1, "a", Some(hash(1))));
        assert!(!all.add(2, "a", Some(hash(1))));
        assert!(!all.add(2, "b", None));
        assert!(all.add(3, "b", Some(hash(2))));
        assert!(all.add(4, "a", None));
        assert_eq!(all.current(), 3);
        assert_eq!(all.at(1), Some([("a".to_owned(), hash(1))].into()));
        assert_eq!(all.at(2).map(|state| state.len()), Some(2));
        assert_eq!(all.in_force(), [("b".to_owned(), hash(2))].into());
        assert_eq!(all.at(4), None);
        assert!(all.needs(&hash(1)) && !all.needs(&hash(9)));
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Generations>(&text).unwrap(), all);
    }

    #[test]
    fn only_so_many_changes_are_kept_and_the_rest_is_folded() {
        let mut all = Generations::default();
        let most = CHANGES_MAX as u64;
        for n in 1..=most {
            assert!(all.add(n, "a", Some(hash(n))));
        }
        assert_eq!(all.at(0), Some(Manifests::new()), "at the limit");
        assert!(all.add(0, "b", Some(hash(0))));
        assert_eq!((all.at(0), all.changes().count()), (None, CHANGES_MAX), "one past it");
        assert_eq!(all.at(1), Some([("a".to_owned(), hash(1))].into()));
        assert_eq!(all.current(), most + 1);
        assert_eq!(all.in_force().len(), 2);
    }
}
