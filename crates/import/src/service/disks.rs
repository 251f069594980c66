//! Limits and weights of disks.

use super::Work;
use crate::{manifest::IoMaximum, parts, unit::Setting};

/// The supervisor's limits.
const BYTES_MIN: u64 = 4096;
const WEIGHT_MAX: u64 = 10_000;

type Set = fn(&mut IoMaximum) -> &mut Option<u64>;

/// Those of operations have no unit but a factor; both count by 1000.
const KEYS: [(&str, u64, Set); 4] = [
    ("IOReadBandwidthMax", BYTES_MIN, |one| &mut one.read_bytes),
    ("IOWriteBandwidthMax", BYTES_MIN, |one| &mut one.write_bytes),
    ("IOReadIOPSMax", 1, |one| &mut one.read_operations),
    ("IOWriteIOPSMax", 1, |one| &mut one.write_operations),
];

impl Work<'_> {
    pub(super) fn disks(&mut self) {
        for (key, least, set) in KEYS {
            for one in self.unit.list("Service", key) {
                self.disk(&one, least, set);
            }
        }
        if let Some(one) = self.service("IOWeight") {
            let done = parts::number(&one.value, WEIGHT_MAX)
                .map(|weight| self.manifest.resources.io_weight = Some(weight));
            self.attempt(&one, "[resources] io_weight", done);
        }
    }

    /// `PATH NUMBER`.
    fn disk(&mut self, one: &Setting, least: u64, set: Set) {
        let Some(words) = self.words(one) else { return };
        let [place, number] = words.as_slice() else {
            return self.refused(one, "it is no path with a number behind it");
        };
        if !place.starts_with('/') || place.split('/').any(|part| part == "..") {
            return self.refused(one, format!("{place:?} is no absolute path"));
        }
        match parts::thousands(number) {
            Ok(None) => self.ignored(one, "there is no limit"),
            Ok(Some(number)) if number >= least => {
                let resources = &mut self.manifest.resources;
                match resources.limit_disk(place.clone(), |limit| *set(limit) = Some(number)) {
                    true => self.mapped(one, "[resources] io"),
                    false => self.refused(one, "a manifest limits at most 16 disks"),
                }
            }
            Ok(Some(number)) => {
                self.refused(one, format!("{number} per second, at least {least} are allowed"))
            }
            Err(why) => self.refused(one, why),
        }
    }
}
