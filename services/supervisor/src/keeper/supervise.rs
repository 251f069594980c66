//! The one child that the keeper starts by itself.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use sandbox::process::{Signal, pidfd_send_signal};
use sandbox::{Descriptor, Executable, Features, Plan, launch};

use super::{KEEPER_FD, KeeperConfig};

/// Starts of the supervisor within [`RESTART_WINDOW`] before the keeper gives up: a supervisor that dies ten times in
/// a minute does so for a reason that an eleventh start does not remove, and a node without one must not look alive.
pub(super) const RESTARTS_MAX: usize = 10;
pub(super) const RESTART_WINDOW: Duration = Duration::from_secs(60);
/// Counted from the previous start, so that one that ran is started again at once, and one that cannot start does not
/// use up the window within a blink.
pub(super) const RESTART_DELAY: Duration = Duration::from_millis(200);

pub(super) enum Verdict {
    Running,
    Started,
    Waiting,
    Lost,
}

pub(super) struct Supervised {
    plan: Plan,
    /// Image, standard streams; the channel joins them at each start.
    slots: Vec<OwnedFd>,
    running: Option<(i32, OwnedFd)>,
    starts: Vec<Instant>,
}

impl Supervised {
    pub(super) fn new(config: KeeperConfig) -> Supervised {
        let mut plan = Plan::trusted("supervisor", Executable::Slot(0));
        plan.arguments = config.arguments;
        plan.environment = config.environment;
        plan.descriptors = (0..=KEEPER_FD).map(|n| Descriptor { slot: n + 1, target: n }).collect();
        let [input, output, error] = config.streams;
        Supervised {
            plan,
            slots: vec![config.image, input, output, error],
            running: None,
            starts: Vec::with_capacity(RESTARTS_MAX + 1),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// A start is due but not yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.running.is_none()
    }

    /// Whether this was the supervisor.
    pub(super) fn has_ended(&mut self, pid: i32) -> bool {
        let is = self.running.as_ref().is_some_and(|(running, _)| *running == pid);
        if is {
            self.running = None;
        }
        is
    }

    pub(super) fn kill(&self) {
        if let Some((_, pidfd)) = &self.running {
            // Gone already is what is wanted.
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
    }

    /// Starts it when it does not run, within the rate. A failed launch counts as a start.
    pub(super) fn keep_running(&mut self, channel: &OwnedFd, features: &Features) -> Verdict {
        if self.running.is_some() {
            return Verdict::Running;
        }
        let now = Instant::now();
        self.starts.retain(|start| now.duration_since(*start) < RESTART_WINDOW);
        if self.starts.last().is_some_and(|start| now.duration_since(*start) < RESTART_DELAY) {
            return Verdict::Waiting;
        }
        if self.starts.len() > RESTARTS_MAX {
            return Verdict::Lost;
        }
        self.starts.push(now);
        let Ok(channel) = channel.try_clone() else { return Verdict::Waiting };
        self.slots.truncate(KEEPER_FD as usize + 1);
        self.slots.push(channel);
        match launch(&self.plan, &self.slots, features, None) {
            Ok(launched) => {
                self.running = Some((launched.pid, launched.pidfd));
                Verdict::Started
            }
            Err(error) => {
                // The only voice that the keeper has; without a supervisor nobody else can say it. On a full disk it is lost:
                // `eprintln!` would panic, and the node with it.
                let _ = writeln!(std::io::stderr(), "keeper: starting the supervisor: {error}");
                Verdict::Waiting
            }
        }
    }
}
