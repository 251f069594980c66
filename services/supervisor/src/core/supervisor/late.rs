//! Services that are late: with `WATCHDOG=1`, or with the answer to a check (SUP-63).
//!
//! First comes a warning, and the kernel's counts of what everybody waits for are read. A service that is still late when
//! its second time is up is judged by what was counted in between (`core/hang.rs`). One that hangs is killed, one at a time;
//! one that the machine has no time for is given another period, and not for ever. Time in which the machine slept counts
//! for nobody.

use std::time::Duration;

use chain::payload::service::ServiceError;

use super::{
    Effect, LaunchId, Monotonic, Supervisor,
    service::{Instance, Stage},
};
use crate::{
    core::{
        hang::{self, Lateness, Reading, Verdict},
        state::{ServiceState, Transition},
    },
    manifest::HealthCheck,
};

/// Between two kills of services that hang: what looks like many at once may be the machine all the same.
pub const HANG_KILL_INTERVAL: Duration = Duration::from_secs(5);
/// Periods that are given to one service in a row because of the machine.
pub const MACHINE_EXCUSES_MAX: u32 = 10;

/// A service that was late once and has not been heard of since.
#[derive(Clone, Debug, Default)]
pub(super) struct Late {
    before: Option<Reading>,
    /// Periods that it was given because of the machine.
    excuses: u32,
    /// It is to be judged by the next reading.
    accused: Option<Accusation>,
}

#[derive(Clone, Debug)]
struct Accusation {
    text: String,
    period: Duration,
    overslept: Duration,
}

impl Supervisor {
    /// The time for `WATCHDOG=1` is over, since so long.
    pub(super) fn unfed(&mut self, name: &str, overslept: Duration) {
        let now = self.now;
        let Some(service) = self.services.get_mut(name) else { return };
        let HealthCheck::SdNotify { watchdog: Some(period) } = service.check else { return };
        let Some(instance) = service.instance.as_mut() else { return };
        // Should no reading come, this ends the waiting for it.
        instance.watchdog_due = Some(now.after(period));
        let ms = period.as_millis();
        if instance.late.is_some() {
            let text = format!("sent no WATCHDOG=1 within {ms} ms, nor within as long after a warning");
            return self.accuse(name, text, period, overslept);
        }
        let text = format!("sent no WATCHDOG=1 within {ms} ms; it has as long again");
        self.effects.push(Effect::Warn(format!("{name} {text}")));
        service.last_error = Some(text.clone());
        self.is_late(name, &text);
        if self.state_of(name) == Some(ServiceState::Running) {
            self.go(name, Transition::HealthWarning, &text);
        }
    }

    /// For the first time: it is on record, and what the kernel counts is read, to be compared.
    pub(super) fn is_late(&mut self, name: &str, text: &str) {
        let Some(instance) = self.services.get_mut(name).and_then(|service| service.instance.as_mut()) else {
            return;
        };
        if instance.late.is_none() {
            instance.late = Some(Late::default());
            self.effects.push(Effect::ReadPressure { launch: instance.launch });
            self.effects.push(Effect::Late { service: name.to_owned(), text: text.to_owned() });
        }
    }

    /// Late for the last time, unless the reading that is asked for excuses it.
    pub(super) fn accuse(&mut self, name: &str, text: String, period: Duration, overslept: Duration) {
        let Some(instance) = self.services.get_mut(name).and_then(|service| service.instance.as_mut()) else {
            return;
        };
        let launch = instance.launch;
        let late = instance.late.get_or_insert_default();
        if late.accused.is_some() {
            // Nobody answered the question before this one.
            return self.fail(name, ServiceError::HealthTimeout, &text);
        }
        late.accused = Some(Accusation { text, period, overslept });
        self.effects.push(Effect::ReadPressure { launch });
    }

    pub(super) fn pressure_read(&mut self, launch: LaunchId, reading: Reading) {
        let Some(name) = self.owner(launch) else { return };
        let (now, crowd) = (self.now, self.crowd());
        let since_kill = self.last_hang_kill.map(|at| now.since(at));
        let Some(service) = self.services.get_mut(&name) else { return };
        let Some(instance) = service.instance.as_mut().filter(|i| i.stage == Stage::Serving) else { return };
        // It has been heard of meanwhile.
        let Some(late) = instance.late.as_mut() else { return };
        let Some(Accusation { text, period, overslept }) = late.accused.take() else {
            late.before = Some(reading);
            return;
        };
        let (late_ones, watched) = crowd;
        let lateness = Lateness { period, overslept, late: late_ones, watched };
        let verdict = hang::judge(late.before.as_ref(), &reading, lateness);
        late.before = Some(reading);
        if verdict != Verdict::Hangs && late.excuses < MACHINE_EXCUSES_MAX {
            late.excuses += 1;
            let text = format!("{text}; it is given another period: {verdict}");
            self.effects.push(Effect::Warn(format!("{name} {text}")));
            self.effects.push(Effect::Late { service: name.clone(), text: super::bounded(&text) });
            service.last_error = Some(super::bounded(&text));
            return;
        }
        if since_kill.is_some_and(|since| since < HANG_KILL_INTERVAL) {
            let seconds = HANG_KILL_INTERVAL.as_secs();
            let text = format!("{text}; another service was killed for that less than {seconds} s ago");
            self.effects.push(Effect::Warn(format!("{name} {text}")));
            return;
        }
        let text = match verdict {
            Verdict::Hangs => format!("{text}; {verdict}"),
            _ => format!("{text}; it was given {MACHINE_EXCUSES_MAX} periods more, although {verdict}"),
        };
        self.last_hang_kill = Some(now);
        self.fail(&name, ServiceError::HealthTimeout, &text);
    }

    /// Those that are late, and all that could be.
    fn crowd(&self) -> (usize, usize) {
        let serving = |service: &&super::service::Service| {
            service.instance.as_ref().is_some_and(|instance| instance.stage == Stage::Serving)
        };
        let watched = self.services.values().filter(serving).filter(|service| service.is_watched());
        watched.fold((0, 0), |(late, all), service| {
            let is_late = service.instance.as_ref().is_some_and(|instance| instance.late.is_some());
            (late + usize::from(is_late), all + 1)
        })
    }

    /// It was heard of.
    pub(super) fn no_longer_late(&mut self, name: &str) -> bool {
        let instance = self.services.get_mut(name).and_then(|service| service.instance.as_mut());
        instance.is_some_and(|instance| instance.late.take().is_some())
    }

    /// The machine slept for so long: nobody could do anything meanwhile, so no deadline of a process came nearer.
    pub(super) fn slept(&mut self, duration: Duration) {
        for instance in self.services.values_mut().filter_map(|service| service.instance.as_mut()) {
            instance.put_off(duration);
        }
    }
}

impl Instance {
    fn put_off(&mut self, by: Duration) {
        let later = |at: &mut Monotonic| *at = at.after(by);
        self.deadline.as_mut().map(later);
        self.watchdog_due.as_mut().map(later);
        self.next_check.as_mut().map(later);
        if let Some(call) = self.call.as_mut() {
            later(&mut call.due);
        }
    }
}
