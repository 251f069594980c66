//! Where a service stands in its life (SUP-56 to SUP-60).

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No `Init` yet, or `Init` still runs.
    Initializing,
    /// `InitComplete` was answered.
    Initialized,
    /// `Started` was answered: clients are served.
    Serving,
    /// `PrepareStop` came: the work in hand is finished, no new one is taken.
    Draining,
    /// `Stop` came, or a failure: the process ends.
    Ended,
}

impl Phase {
    /// As `ServiceStatus.phase` says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initializing | Self::Initialized => "initializing",
            Self::Serving => "serving",
            Self::Draining | Self::Ended => "draining",
        }
    }
}

/// The phase, and a bell that rings when it changes. It only moves forward.
#[derive(Debug)]
pub(crate) struct Life {
    phase: watch::Sender<Phase>,
}

impl Default for Life {
    fn default() -> Self {
        Self { phase: watch::Sender::new(Phase::Initializing) }
    }
}

impl Life {
    #[must_use]
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves on; a step back is ignored.
    pub(crate) fn advance(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let moves = *phase < next;
            if moves {
                *phase = next;
            }
            moves
        });
    }

    pub(crate) async fn reached(&self, wanted: Phase) {
        let mut watcher = self.phase.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = watcher.wait_for(|phase| *phase >= wanted).await;
    }
}
