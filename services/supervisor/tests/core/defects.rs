//! Mistakes between the machine and the world that its promises are about: each must break one that the audit sees.

use supervisor::core::supervisor::{Effect, Event, LaunchId, Monotonic, Notification, Signal};

use crate::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    None,
    /// Not one of [`Defect::ALL`]: the machine has to live with it.
    TellsExitsTwice,
    /// A service is started a second time beside the first.
    LaunchesTwice,
    /// SIGKILL goes nowhere.
    SwallowsKills,
    /// SIGKILL becomes SIGTERM, which a service may ignore.
    AsksInsteadOfKilling,
    /// Nobody is told that a process ended.
    LosesExits,
    /// An end is told of a process that lives.
    InventsExits,
    /// A start that failed counts as done.
    HidesFailedLaunches,
    /// Timers never fire.
    SleepsThroughTimers,
    /// Time goes by faster for the machine, so it forgets restarts too early.
    ForgetsRestarts,
    /// Whoever asked for a stop is not answered.
    SwallowsReplies,
    /// A shutdown that ended is not said to have.
    NeverFinishes,
}

impl Defect {
    pub(crate) const ALL: [Defect; 10] = [
        Defect::LaunchesTwice,
        Defect::SwallowsKills,
        Defect::AsksInsteadOfKilling,
        Defect::LosesExits,
        Defect::InventsExits,
        Defect::HidesFailedLaunches,
        Defect::SleepsThroughTimers,
        Defect::ForgetsRestarts,
        Defect::SwallowsReplies,
        Defect::NeverFinishes,
    ];
}

/// How much faster the machine's clock is.
const FASTER: u64 = 20;
/// One of so many is told to have ended.
const INVENTS_ONE_OF: u64 = 50;

pub(crate) struct Mangle {
    defect: Defect,
    began: Monotonic,
    seen: u64,
    launch: Option<LaunchId>,
}

impl Mangle {
    pub(crate) fn new(defect: Defect, began: Monotonic) -> Self {
        Self { defect, began, seen: 0, launch: None }
    }

    fn factor(&self) -> u64 {
        if self.defect == Defect::ForgetsRestarts { FASTER } else { 1 }
    }

    pub(crate) fn machine_time(&self, now: Monotonic) -> Monotonic {
        Monotonic(self.began.0 + (now.0 - self.began.0) * self.factor())
    }

    /// When a deadline of the machine is due in the world.
    pub(crate) fn world_time(&self, due: Monotonic) -> Monotonic {
        Monotonic(self.began.0 + due.0.saturating_sub(self.began.0).div_ceil(self.factor()))
    }

    /// What the machine is told.
    pub(crate) fn event(&mut self, event: Event) -> Vec<Event> {
        match (self.defect, event) {
            (Defect::TellsExitsTwice, Event::Exited { launch, status }) => {
                vec![Event::Exited { launch, status }, Event::Exited { launch, status }]
            }
            (Defect::LosesExits, Event::Exited { .. }) | (Defect::SleepsThroughTimers, Event::Timer) => {
                Vec::new()
            }
            (Defect::HidesFailedLaunches, Event::LaunchFailed { launch, .. }) => vec![
                Event::Launched { launch, pid: 1, missing: Vec::new() },
                Event::Notify { launch, notification: Notification::Ready },
            ],
            (_, event) => vec![event],
        }
    }

    /// What the world does.
    pub(crate) fn effect(&mut self, effect: Effect, world: &mut World) -> Vec<Effect> {
        self.seen += 1;
        match (self.defect, effect) {
            (Defect::LaunchesTwice, Effect::Launch { launch, service, manifest, binary }) => {
                let again =
                    Effect::Launch { launch, service: service.clone(), manifest: manifest.clone(), binary };
                vec![again, Effect::Launch { launch, service, manifest, binary }]
            }
            (Defect::SwallowsKills, Effect::Signal { signal: Signal::Kill, .. })
            | (Defect::SwallowsReplies, Effect::Reply { .. })
            | (Defect::NeverFinishes, Effect::Finished { .. }) => Vec::new(),
            (Defect::AsksInsteadOfKilling, Effect::Signal { launch, signal: Signal::Kill }) => {
                vec![Effect::Signal { launch, signal: Signal::Terminate }]
            }
            (Defect::InventsExits, effect) => {
                if self.seen.is_multiple_of(INVENTS_ONE_OF)
                    && let Some(launch) = world.processes.keys().next().copied()
                    && self.launch.replace(launch) != Some(launch)
                {
                    let status = supervisor::core::supervisor::ExitStatus::Signal(9);
                    world.inbox.push_back(Event::Exited { launch, status });
                }
                vec![effect]
            }
            (_, effect) => vec![effect],
        }
    }
}
