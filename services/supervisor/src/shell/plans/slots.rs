//! In which order descriptors travel to the keeper, and under which numbers they arrive.

use std::os::fd::OwnedFd;

use sandbox::{Descriptor, Executable};

/// Numbers below are standard streams.
pub(super) const FIRST_TARGET: u32 = 3;

/// Slots of a plan: stored ones first, then those that are sent, and their numbers in the new process.
#[derive(Debug, Default)]
pub(super) struct Slots {
    stored: Vec<(String, u32)>,
    passed: Vec<(OwnedFd, u32)>,
}

impl Slots {
    fn next(&self) -> u32 {
        let used = self.stored.len().saturating_add(self.passed.len());
        FIRST_TARGET.saturating_add(u32::try_from(used).unwrap_or(u32::MAX))
    }

    pub(super) fn stored(&mut self, name: String) -> u32 {
        let target = self.next();
        self.stored.push((name, target));
        target
    }

    pub(super) fn passed(&mut self, fd: OwnedFd) -> u32 {
        let target = self.next();
        self.passed.push((fd, target));
        target
    }

    /// With the image, and the log as standard output and error.
    pub(super) fn finish(self, image: OwnedFd, log: OwnedFd) -> Finished {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let (names, mut targets): (Vec<String>, Vec<u32>) = self.stored.into_iter().unzip();
        let first_sent = count(names.len());
        let mut fds = Vec::with_capacity(self.passed.len() + 2);
        for (fd, target) in self.passed {
            fds.push(fd);
            targets.push(target);
        }
        let mut descriptors: Vec<Descriptor> = targets
            .into_iter()
            .enumerate()
            .map(|(slot, target)| Descriptor { slot: count(slot), target })
            .collect();
        let log_slot = first_sent.saturating_add(count(fds.len()));
        descriptors.extend([1, 2].map(|target| Descriptor { slot: log_slot, target }));
        fds.extend([log, image]);
        (Executable::Slot(log_slot.saturating_add(1)), descriptors, names, fds)
    }
}

pub(super) type Finished = (Executable, Vec<Descriptor>, Vec<String>, Vec<OwnedFd>);
