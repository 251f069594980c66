//! Starts services by time: the accounts of their timers, and one alarm for all of them.
//!
//! The alarm is a timer of the wall clock that rings early when the clock is set, so nothing here looks again and again.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
    time::Duration,
};

use base::Hash;
use jiff::{Timestamp, tz::TimeZone};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use super::{knowledge::Knowledge, run::now};
use crate::{
    core::{
        supervisor::Supervisor,
        timer::{Account, Moment, Timer},
    },
    manifest::TimerConfig,
};

/// What is waited for at most: `due_in` is asked again then.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The same where the kernel does not know that the clock is moved, and so wakes nobody.
const WAIT_MAX_MOVED: Duration = Duration::from_millis(100);
/// Nobody waits: the alarm is off.
const NEVER: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// The host's zone. None where it has none that can be read: then calendar times must be in UTC.
#[must_use]
pub(super) fn local_zone() -> Option<TimeZone> {
    TimeZone::try_system().ok()
}

pub(super) fn moment() -> Moment {
    let wall = Timestamp::try_from(kit::wall_time()).unwrap_or_else(|_| Timestamp::now());
    Moment { wall, boot: now() }
}

struct Known {
    manifest: Hash,
    timer: Timer,
}

/// Timers of all services that may be started by theirs.
#[derive(Default)]
pub(super) struct Timers {
    known: BTreeMap<String, Known>,
    /// Of the supervisor before, until their services are taken up.
    kept: BTreeMap<String, (Hash, Account)>,
    /// Something may have come, gone or been started since the last look.
    changed: bool,
}

impl Timers {
    pub(super) fn keep(&mut self, kept: BTreeMap<String, (Hash, Account)>) {
        self.kept = kept;
        self.changed = true;
    }

    /// What the next supervisor must know.
    #[must_use]
    pub(super) fn accounts(&self) -> BTreeMap<String, (Hash, Account)> {
        let of = |(name, known): (&String, &Known)| (name.clone(), (known.manifest, known.timer.account()));
        self.known.iter().map(of).collect()
    }

    pub(super) fn set_changed(&mut self) {
        self.changed = true;
    }

    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn started(&mut self, service: &str) {
        if let Some(known) = self.known.get_mut(service) {
            known.timer.started(moment());
            self.changed = true;
        }
    }

    /// Takes up those that have been armed, and lets go of the others.
    pub(super) fn follow(&mut self, machine: &Supervisor, knowledge: &Knowledge, now: Moment) {
        let armed: BTreeMap<&str, (Hash, &TimerConfig)> = machine
            .armed_timers()
            .map(|(manifest, config)| (manifest.name(), (manifest.hash, config)))
            .collect();
        self.known.retain(|name, known| armed.get(name.as_str()).is_some_and(|it| it.0 == known.manifest));
        for (name, (manifest, config)) in armed {
            if self.known.contains_key(name) {
                continue;
            }
            // Apart from other nodes, and from other services of this one.
            let seed = Hash::of_parts(&[&knowledge.own.0, name.as_bytes()]);
            let timer = match self.kept.remove(name).filter(|(kept, _)| *kept == manifest) {
                Some((_, account)) => Timer::again(config, seed, account),
                None => Timer::new(config, seed, now, knowledge.last_start(name)),
            };
            self.known.insert(name.to_owned(), Known { manifest, timer });
        }
    }

    /// Names of those that are due; they count as fired.
    pub(super) fn fire(&mut self, now: Moment, zone: &TimeZone) -> Vec<String> {
        let mut due = Vec::new();
        for (name, known) in &mut self.known {
            known.timer.follow_clock(now);
            if known.timer.due_in(now, zone) == Some(Duration::ZERO) {
                known.timer.fired(now);
                due.push(name.clone());
            }
        }
        due
    }

    /// When each is due, by the wall clock.
    #[must_use]
    pub(super) fn next(&self, now: Moment, zone: &TimeZone) -> BTreeMap<String, Timestamp> {
        let of = |(name, known): (&String, &Known)| {
            let due = now.wall.checked_add(known.timer.due_in(now, zone)?).ok()?;
            Some((name.clone(), due))
        };
        self.known.iter().filter_map(of).collect()
    }
}

struct Clock(OwnedFd);

impl AsRawFd for Clock {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Clock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Alarm(Arc<AsyncFd<Clock>>);

impl Alarm {
    #[expect(
        deprecated,
        reason = "the form without the warning is unsafe; this one owns its descriptor and never swaps it"
    )]
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let clock = Clock(timerfd_create(TimerfdClockId::Realtime, flags)?);
        Ok(Self(Arc::new(AsyncFd::new(clock)?)))
    }

    /// Rings then, or when the wall clock is set; never if there is nothing to wait for.
    pub(super) fn set(&self, at: Option<Timestamp>, now: Timestamp) {
        let wait_max = if kit::is_wall_moved() { WAIT_MAX_MOVED } else { WAIT_MAX };
        let kernel = Timestamp::now();
        let at = at.map(|at| kernel.checked_add(at.duration_since(now)).unwrap_or(kernel));
        let latest = kernel.checked_add(wait_max).unwrap_or(Timestamp::MAX);
        let at = at.map_or(NEVER, |at| {
            let at = at.min(latest);
            let whole = Timespec { tv_sec: at.as_second(), tv_nsec: at.subsec_nanosecond().into() };
            // Zero would switch it off.
            if whole.tv_sec <= 0 { Timespec { tv_sec: 0, tv_nsec: 1 } } else { whole }
        });
        let spec = Itimerspec { it_interval: NEVER, it_value: at };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        if let Err(error) = timerfd_settime(self.0.get_ref(), flags, &spec) {
            tracing::error!(%error, "the alarm of the timers cannot be set");
        }
    }

    pub(super) async fn rung(&self) {
        loop {
            let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
            match rustix::io::read(self.0.get_ref(), &mut [0_u8; 8]) {
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                // Rung, or cancelled because the clock was set.
                _ => return,
            }
        }
    }
}

/// Without an alarm nothing rings.
pub(super) async fn rung(alarm: Option<&Alarm>) {
    match alarm {
        Some(alarm) => alarm.rung().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_alarm_rings_when_it_is_time_and_not_again() {
        let alarm = Alarm::new().unwrap();
        let now = Timestamp::now();
        alarm.set(Some(now.checked_add(Duration::from_millis(20)).unwrap()), now);
        alarm.rung().await;
        assert!(Timestamp::now() >= now.checked_add(Duration::from_millis(20)).unwrap());
        // A time that has passed rings at once.
        alarm.set(Some(now), Timestamp::now());
        alarm.rung().await;
        alarm.set(None, Timestamp::now());
        let silent = tokio::time::timeout(Duration::from_millis(30), alarm.rung()).await;
        assert!(silent.is_err());
    }
}
