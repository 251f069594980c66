//! What runs beside one child: commands of its plan, and what was executed because somebody asked for it. Fixed capacity.

use sandbox::EXECUTED_FROM;
use sandbox::process::ExitStatus;

/// Commands of one child's plan that run at once: the check of its health, and another.
const COMMANDS_AT_ONCE: usize = 2;
/// Processes beside one child that were asked for, at once: a handful of people with a shell each.
pub const EXECUTED_AT_ONCE: usize = 8;
/// Of what nobody asked for, or whose client has gone.
const NOBODY: u64 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Free,
    Running {
        place: u8,
        run: u64,
    },
    /// Not told yet.
    Done {
        place: u16,
        run: u64,
        status: ExitStatus,
    },
}

#[derive(Debug)]
pub(super) struct Beside {
    commands: [Slot; COMMANDS_AT_ONCE],
    /// By place, from [`EXECUTED_FROM`] on.
    executed: [Slot; EXECUTED_AT_ONCE],
}

impl Default for Beside {
    fn default() -> Beside {
        Beside { commands: [Slot::Free; COMMANDS_AT_ONCE], executed: [Slot::Free; EXECUTED_AT_ONCE] }
    }
}

fn place_at(index: usize) -> Option<u8> {
    EXECUTED_FROM.checked_add(u8::try_from(index).ok()?)
}

impl Beside {
    /// Whether a command of the plan may be run now.
    pub(super) fn admits(&self, command: u8, run: u64) -> Result<(), String> {
        is_somebody(run)?;
        if command >= EXECUTED_FROM {
            return Err(format!("{command} is the place of no command"));
        }
        if self.commands.iter().any(|slot| matches!(slot, Slot::Running { place, .. } if *place == command)) {
            return Err(format!("the command {command} runs already"));
        }
        match self.commands.contains(&Slot::Free) {
            true => Ok(()),
            false => Err(format!("{COMMANDS_AT_ONCE} commands run already")),
        }
    }

    /// To be called when it was admitted and asked for.
    pub(super) fn runs(&mut self, place: u8, run: u64) {
        if let Some(slot) = self.commands.iter_mut().find(|slot| **slot == Slot::Free) {
            *slot = Slot::Running { place, run };
        }
    }

    /// Where one more can be executed.
    pub(super) fn free_place(&self, run: u64) -> Result<u8, String> {
        is_somebody(run)?;
        let at = self.executed.iter().position(|slot| *slot == Slot::Free);
        at.and_then(place_at)
            .ok_or_else(|| format!("{EXECUTED_AT_ONCE} commands that were asked for run already"))
    }

    pub(super) fn executes(&mut self, place: u8, run: u64) {
        if let Some(slot) = self.executed.get_mut(usize::from(place.saturating_sub(EXECUTED_FROM))) {
            *slot = Slot::Running { place, run };
        }
    }

    /// None if it does not run any more.
    pub(super) fn place_of(&self, wanted: u64) -> Option<u8> {
        self.executed.iter().find_map(|slot| match slot {
            Slot::Running { place, run } if *run == wanted => Some(*place),
            _ => None,
        })
    }

    /// Places of what runs.
    pub(super) fn forget_executed(&mut self) -> [Option<u8>; EXECUTED_AT_ONCE] {
        let mut running = [None; EXECUTED_AT_ONCE];
        for (slot, found) in self.executed.iter_mut().zip(&mut running) {
            match slot {
                // The place is taken until its init says that it is not.
                Slot::Running { place, run } => (*run, *found) = (NOBODY, Some(*place)),
                Slot::Done { .. } => *slot = Slot::Free,
                Slot::Free => {}
            }
        }
        running
    }

    /// Those before the program nobody asked for: of them the last is remembered.
    pub(super) fn done(&mut self, command: u16, status: ExitStatus) {
        let is_it = |slot: &Slot| matches!(slot, Slot::Running { place, .. } if u16::from(*place) == command);
        if let Some(slot) = self.executed.iter_mut().find(|slot| is_it(slot)) {
            *slot = match *slot {
                Slot::Running { run, .. } if run != NOBODY => Slot::Done { place: command, run, status },
                _ => Slot::Free,
            };
            return;
        }
        let own = self.commands.iter().position(is_it);
        let free = || self.commands.iter().position(|slot| !matches!(slot, Slot::Running { .. }));
        if let Some(slot) = own.or_else(free).and_then(|at| self.commands.get_mut(at)) {
            let run = if let Slot::Running { run, .. } = *slot { run } else { NOBODY };
            *slot = Slot::Done { place: command, run, status };
        }
    }

    /// Counts as told from now on.
    pub(super) fn next_untold(&mut self) -> Option<(u16, u64, ExitStatus)> {
        self.commands.iter_mut().chain(&mut self.executed).find_map(|slot| {
            let Slot::Done { place, run, status } = *slot else { return None };
            *slot = Slot::Free;
            Some((place, run, status))
        })
    }
}

fn is_somebody(run: u64) -> Result<(), String> {
    if run == NOBODY { Err("a run has a number above 0".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: ExitStatus = ExitStatus::Code(0);

    #[test]
    fn an_end_is_told_as_that_of_the_run_that_it_is() {
        let mut beside = Beside::default();
        beside.admits(3, 71).unwrap();
        beside.runs(3, 71);
        assert!(beside.admits(3, 72).is_err());
        beside.done(3, ExitStatus::Code(9));
        // Another client asks before it was told.
        beside.admits(3, 72).unwrap();
        beside.runs(3, 72);
        assert_eq!(beside.next_untold(), Some((3, 71, ExitStatus::Code(9))));
        assert_eq!(beside.next_untold(), None);
        beside.done(3, WELL);
        assert_eq!(beside.next_untold(), Some((3, 72, WELL)));
        beside.done(0, WELL);
        assert_eq!(beside.next_untold(), Some((0, NOBODY, WELL)), "one before the program");
        assert!(beside.admits(3, NOBODY).is_err() && beside.free_place(NOBODY).is_err());
        assert!(beside.admits(EXECUTED_FROM, 1).is_err());
    }

    #[test]
    fn of_what_was_asked_for_so_many_run_and_one_more_is_refused() {
        let mut beside = Beside::default();
        for run in 1..=EXECUTED_AT_ONCE as u64 {
            let place = beside.free_place(run).unwrap();
            beside.executes(place, run);
            assert_eq!(beside.place_of(run), Some(place));
        }
        assert!(beside.free_place(99).is_err());
        beside.done(u16::from(EXECUTED_FROM) + 2, WELL);
        assert_eq!(beside.place_of(3), None);
        // Not before it was told: the place names it.
        assert!(beside.free_place(99).is_err());
        assert_eq!(beside.next_untold(), Some((u16::from(EXECUTED_FROM) + 2, 3, WELL)));
        assert_eq!(beside.free_place(99), Ok(EXECUTED_FROM + 2));
    }

    #[test]
    fn nobody_is_told_of_what_a_client_before_asked_for() {
        let mut beside = Beside::default();
        for run in [5, 6] {
            let place = beside.free_place(run).unwrap();
            beside.executes(place, run);
        }
        beside.done(u16::from(EXECUTED_FROM), WELL);
        let running: Vec<u8> = beside.forget_executed().into_iter().flatten().collect();
        assert_eq!(running, [EXECUTED_FROM + 1]);
        assert_eq!((beside.next_untold(), beside.place_of(6)), (None, None));
        assert_eq!(beside.free_place(7), Ok(EXECUTED_FROM));
        beside.done(u16::from(EXECUTED_FROM) + 1, WELL);
        assert_eq!(beside.next_untold(), None);
    }
}
