//! In which order descriptors travel to the keeper, and under which numbers they arrive.

use std::os::fd::OwnedFd;

use sandbox::{Descriptor, Executable, Mount};

use super::Order;

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

/// Descriptors that the keeper holds come before what is sent, and these before all others.
pub(super) fn put_first(order: &mut Order, names: &[String]) {
    let count = u32::try_from(names.len()).unwrap_or(u32::MAX);
    let Order { plan, stored, .. } = order;
    let later = |slot: &mut u32| *slot = slot.saturating_add(count);
    plan.descriptors.iter_mut().for_each(|descriptor| later(&mut descriptor.slot));
    if let Executable::Slot(slot) = &mut plan.executable {
        later(slot);
    }
    for mount in &mut plan.mounts {
        if let Mount::Sealed { slot, .. } = mount {
            later(slot);
        }
    }
    if let Some(watched) = plan.watched.as_mut() {
        watched.published.iter_mut().for_each(|published| later(&mut published.slot));
    }
    stored.splice(0..0, names.iter().cloned());
}

pub(super) type Finished = (Executable, Vec<Descriptor>, Vec<String>, Vec<OwnedFd>);
