//! The processes that exist, as far as this service knows.

use std::collections::BTreeMap;

use base::{AxiomRef, Hash, IdentityId, ProcessId};
use chain::payload::process::{ExitStatus, RefusedCall, ResourceUsage};

use super::{
    Event, ProcessError, ProcessState,
    learn::UsedPath,
    limits::{PROCESSES_MAX, ZOMBIE_LIFE_MS},
    next,
    request::PathGrant,
};

#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    pub pid: ProcessId,
    pub state: ProcessState,
    pub image: Hash,
    pub identity: IdentityId,
    pub by: IdentityId,
    pub name: String,
    pub paths: Vec<PathGrant>,
    /// None until the log has it.
    pub created_at: Option<AxiomRef>,
    /// Of the monitor, as the host numbers it.
    pub host_pid: u32,
    pub exit: Option<Exit>,
    /// Callers that follow its streams; it is not forgotten before they have seen the end.
    pub attached: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    pub status: ExitStatus,
    pub usage: ResourceUsage,
    pub refused: Vec<RefusedCall>,
    /// Of one that was started to be learned of; true: not all.
    pub used: (Vec<UsedPath>, bool),
    /// Milliseconds on the caller's clock.
    pub ended_at_ms: u64,
    pub waited: bool,
    /// The log has it; before, nothing is forgotten.
    pub recorded: bool,
}

/// Who looks at the table (open point 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Viewer {
    /// Services, the admin and System identities see everything.
    All,
    /// Others see what runs as they do, and what they started.
    Identity(IdentityId),
}

impl Viewer {
    #[must_use]
    pub fn sees(self, process: &Process) -> bool {
        match self {
            Self::All => true,
            Self::Identity(id) => process.identity == id || process.by == id,
        }
    }
}

#[derive(Debug, Default)]
pub struct Table {
    processes: BTreeMap<ProcessId, Process>,
    last: u64,
}

impl Table {
    /// The next id: above everything on record, in the keeper and given out here (PRC-35).
    pub fn reserve(&mut self, on_record: u64) -> ProcessId {
        self.last = self.last.max(on_record) + 1;
        ProcessId(self.last)
    }

    /// Takes notice of an id that is in use elsewhere.
    pub fn saw(&mut self, pid: u64) {
        self.last = self.last.max(pid);
    }

    /// Room for one more; the oldest ended one gives way, whose exit is in the log.
    pub fn make_room(&mut self) -> Result<Option<ProcessId>, ProcessError> {
        if self.processes.len() < PROCESSES_MAX {
            return Ok(None);
        }
        let ended = self.processes.values().filter(|process| process.attached == 0);
        let recorded = |process: &Process| {
            let exit = process.exit.as_ref().filter(|exit| exit.recorded)?;
            Some((exit.ended_at_ms, process.pid))
        };
        let ended = ended.filter_map(recorded);
        let oldest = ended.min().map(|(_, pid)| pid).ok_or(ProcessError::ResourceShortage)?;
        self.processes.remove(&oldest);
        Ok(Some(oldest))
    }

    pub fn insert(&mut self, process: Process) {
        self.last = self.last.max(process.pid.0);
        self.processes.insert(process.pid, process);
    }

    #[must_use]
    pub fn get(&self, pid: ProcessId) -> Option<&Process> {
        self.processes.get(&pid)
    }

    pub fn get_mut(&mut self, pid: ProcessId) -> Option<&mut Process> {
        self.processes.get_mut(&pid)
    }

    pub fn find(&self, pid: ProcessId, viewer: Viewer) -> Result<&Process, ProcessError> {
        let found = self.processes.get(&pid).filter(|process| viewer.sees(process));
        found.ok_or(ProcessError::NoSuchProcess(pid))
    }

    pub fn list(&self, viewer: Viewer) -> impl Iterator<Item = &Process> {
        self.processes.values().filter(move |process| viewer.sees(process))
    }

    /// Moves a process on; a move that does not exist is refused and changes nothing.
    pub fn step(&mut self, pid: ProcessId, event: Event) -> Result<(), ProcessError> {
        let process = self.processes.get_mut(&pid).ok_or(ProcessError::NoSuchProcess(pid))?;
        match next(process.state, event).map_err(|state| ProcessError::WrongState { pid, state })? {
            Some(state) => process.state = state,
            None => drop(self.processes.remove(&pid)),
        }
        Ok(())
    }

    /// The end of a process. Told twice, the first counts.
    pub fn ended(&mut self, pid: ProcessId, exit: Exit) -> bool {
        match self.step(pid, Event::Ended) {
            Ok(()) => {
                if let Some(process) = self.processes.get_mut(&pid) {
                    process.exit = Some(exit);
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Zombies that somebody has waited for, or nobody for 60 s; they are gone from here on (PRC-24).
    pub fn forget(&mut self, now_ms: u64) -> Vec<ProcessId> {
        let over = |process: &Process| {
            process.attached == 0
                && process.exit.as_ref().is_some_and(|exit| {
                    exit.recorded
                        && (exit.waited || now_ms.saturating_sub(exit.ended_at_ms) >= ZOMBIE_LIFE_MS)
                })
        };
        let gone: Vec<ProcessId> = self.processes.values().filter(|p| over(p)).map(|p| p.pid).collect();
        gone.into_iter().filter(|pid| self.step(*pid, Event::Forget).is_ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn process(pid: u64) -> Process {
        Process {
            pid: ProcessId(pid),
            state: ProcessState::Running,
            image: Hash([1; 32]),
            identity: IdentityId([2; 32]),
            by: IdentityId([3; 32]),
            name: "cat".to_owned(),
            paths: Vec::new(),
            created_at: None,
            host_pid: 0,
            exit: None,
            attached: 0,
        }
    }

    fn exit(at_ms: u64) -> Exit {
        Exit {
            status: ExitStatus::Code(3),
            usage: ResourceUsage::default(),
            refused: Vec::new(),
            used: (Vec::new(), false),
            ended_at_ms: at_ms,
            waited: false,
            recorded: true,
        }
    }

    /// covers: PRC-07, PRC-24
    #[test]
    fn an_exit_status_is_kept_until_waited_for_or_sixty_seconds() {
        let mut table = Table::default();
        (1..=4).for_each(|pid| table.insert(process(pid)));
        for pid in [1, 2, 3] {
            assert!(table.ended(ProcessId(pid), exit(1000)));
        }
        assert!(!table.ended(ProcessId(1), exit(2000)), "the first end counts");
        assert_eq!(table.forget(1000), []);
        table.get_mut(ProcessId(1)).unwrap().exit.as_mut().unwrap().waited = true;
        table.get_mut(ProcessId(2)).unwrap().attached = 1;
        table.insert(process(5));
        table.ended(ProcessId(5), Exit { waited: true, recorded: false, ..exit(0) });
        assert_eq!(table.forget(1000), [ProcessId(1)]);
        assert_eq!(table.forget(1000 + ZOMBIE_LIFE_MS - 1), []);
        assert_eq!(table.forget(1000 + ZOMBIE_LIFE_MS), [ProcessId(3)]);
        assert!(table.find(ProcessId(4), Viewer::All).is_ok(), "what runs is never forgotten");
        assert_eq!(table.find(ProcessId(3), Viewer::All), Err(ProcessError::NoSuchProcess(ProcessId(3))));
    }

    #[test]
    fn the_oldest_ended_gives_way_and_running_ones_never() {
        let mut table = Table::default();
        (1..=PROCESSES_MAX as u64).for_each(|pid| table.insert(process(pid)));
        assert_eq!(table.make_room(), Err(ProcessError::ResourceShortage));
        table.ended(ProcessId(9), exit(50));
        table.ended(ProcessId(7), exit(60));
        assert_eq!(table.make_room(), Ok(Some(ProcessId(9))));
        assert_eq!(table.make_room(), Ok(None));
    }

    #[test]
    fn others_see_what_is_theirs() {
        let mut table = Table::default();
        table.insert(process(1));
        for (viewer, sees) in [
            (Viewer::All, true),
            (Viewer::Identity(IdentityId([2; 32])), true),
            (Viewer::Identity(IdentityId([3; 32])), true),
            (Viewer::Identity(IdentityId([4; 32])), false),
        ] {
            assert_eq!(table.find(ProcessId(1), viewer).is_ok(), sees, "{viewer:?}");
            assert_eq!(table.list(viewer).count(), usize::from(sees));
        }
    }

    proptest! {
        /// covers: PRC-35
        #[test]
        fn an_id_is_never_given_twice(steps in proptest::collection::vec((0u8..3, 0u64..50), 1..60)) {
            let mut table = Table::default();
            let mut on_record = 0;
            let mut given = std::collections::BTreeSet::new();
            for (what, number) in steps {
                match what {
                    0 => {
                        let pid = table.reserve(on_record);
                        prop_assert!(pid.0 > on_record);
                        prop_assert!(given.insert(pid), "{pid} twice");
                        if number % 2 == 0 { on_record = pid.0; }
                    }
                    1 => { table.saw(number); given.extend((1..=number).map(ProcessId)); }
                    // A new process of this service knows the log alone; ids that were given and never recorded
                    // named nothing.
                    _ => { table = Table::default(); given.retain(|pid| pid.0 <= on_record); }
                }
            }
        }
    }
}
