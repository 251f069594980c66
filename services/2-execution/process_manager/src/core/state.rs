//! The life of a process. A restart of this service changes no state: the monitor is asked.

use std::fmt;

/// PRC-25. `Failed` is no state: it is the error of `spawn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    Creating,
    Running,
    Suspended,
    Zombie,
}

impl ProcessState {
    pub const ALL: [Self; 4] = [Self::Creating, Self::Running, Self::Suspended, Self::Zombie];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Suspended => "suspended",
            Self::Zombie => "zombie",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl fmt::Display for ProcessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It executes its image.
    Started,
    /// Nothing runs and nothing ever did.
    Failed,
    Suspend,
    Resume,
    Ended,
    /// Somebody has waited, or nobody did for 60 s.
    Forget,
}

impl Event {
    pub const ALL: [Self; 6] =
        [Self::Started, Self::Failed, Self::Suspend, Self::Resume, Self::Ended, Self::Forget];
}

/// Where an event leads: `Ok(None)` is gone. Every other move is refused (PRC-24). The end wins over everything: a
/// process that ended while it was being suspended is a zombie.
pub fn next(state: ProcessState, event: Event) -> Result<Option<ProcessState>, ProcessState> {
    use ProcessState::{Creating, Running, Suspended, Zombie};
    match (state, event) {
        (Creating, Event::Started) | (Suspended, Event::Resume) => Ok(Some(Running)),
        (Creating, Event::Failed) | (Zombie, Event::Forget) => Ok(None),
        (Running, Event::Suspend) => Ok(Some(Suspended)),
        (Running | Suspended, Event::Ended) => Ok(Some(Zombie)),
        (state, _) => Err(state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: PRC-24, PRC-25
    #[test]
    fn exactly_seven_moves_exist() {
        use ProcessState::{Creating, Running, Suspended, Zombie};
        let mut moves = Vec::new();
        for state in ProcessState::ALL {
            assert_eq!(ProcessState::parse(&state.to_string()), Some(state));
            for event in Event::ALL {
                if let Ok(to) = next(state, event) {
                    moves.push((state, event, to));
                }
            }
        }
        let expected = [
            (Creating, Event::Started, Some(Running)),
            (Creating, Event::Failed, None),
            (Running, Event::Suspend, Some(Suspended)),
            (Running, Event::Ended, Some(Zombie)),
            (Suspended, Event::Resume, Some(Running)),
            (Suspended, Event::Ended, Some(Zombie)),
            (Zombie, Event::Forget, None),
        ];
        assert_eq!(moves, expected);
    }
}
