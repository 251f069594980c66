//! A timer unit, which is the `[timer]` of its service.

use super::Work;
use crate::{
    manifest::Timer,
    unit::{Setting, Unit, value},
};

/// The supervisor's limits: calendar times, shortest time between two starts, longest time of a timer (a leap year).
const CALENDAR_MAX: usize = 16;
const EVERY_MS_MIN: u64 = 1000;
const SPAN_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1000;

impl Work<'_> {
    pub(super) fn timer(&mut self, unit: &Unit) {
        self.part(unit);
        if let Some(one) = self.one_of(unit, "Timer", "Unit") {
            self.mapped(&one, "it starts this service");
        }
        let mut made = self.manifest.timer.take().unwrap_or_default();
        for one in unit.list("Timer", "OnCalendar") {
            let Some(text) = self.put_in_of(unit, &one, &one.value) else { continue };
            if made.calendar.len() == CALENDAR_MAX {
                self.refused(&one, format!("a timer has at most {CALENDAR_MAX} calendar times"));
                continue;
            }
            made.calendar.push(text);
            self.mapped(&one, "[timer] calendar");
        }
        for key in ["OnBootSec", "OnStartupSec", "OnActiveSec"] {
            let how = (key != "OnBootSec").then_some("counted from the host's start, not from the timer's");
            for one in unit.list("Timer", key) {
                made.after_boot_ms = self.first(&one, made.after_boot_ms, "after_boot_ms", how);
            }
        }
        for key in ["OnUnitActiveSec", "OnUnitInactiveSec"] {
            let how =
                (key != "OnUnitActiveSec").then_some("counted from the last start, not from the last end");
            for one in unit.list("Timer", key) {
                made.every_ms = self.first(&one, made.every_ms, "every_ms", how);
            }
        }
        for key in ["RandomizedDelaySec", "RandomizedOffsetSec"] {
            let Some(one) = self.one_of(unit, "Timer", key) else { continue };
            let Some((ms, _)) = self.long_ms(&one) else { continue };
            made.random_delay_ms = (ms > 0).then_some(ms);
            self.mapped(&one, "[timer] random_delay_ms");
        }
        if let Some(one) = self.one_of(unit, "Timer", "Persistent")
            && let Some(on) = self.truth(&one)
        {
            made.catch_up = on;
            self.mapped(&one, "[timer] catch_up");
        }
        if let Some(one) = self.one_of(unit, "Timer", "FixedRandomDelay") {
            match self.truth(&one) {
                Some(true) => self.mapped(&one, "the delay is the same for each time of a node"),
                Some(false) => self.approximated(&one, "the delay is the same for each time of a node"),
                None => {}
            }
        }
        for key in ["OnClockChange", "OnTimezoneChange", "WakeSystem"] {
            let Some(one) = self.one_of(unit, "Timer", key) else { continue };
            match self.truth(&one) {
                Some(true) => {
                    self.refused(&one, "only the time starts a service, and the host is not woken for it")
                }
                Some(false) => self.ignored(&one, "it is not done"),
                None => {}
            }
        }
        if made == Timer::default() {
            let why =
                "the timer has no time at which it starts its service; the service starts with the node";
            self.report.add(&unit.place(), "", "", crate::report::Fate::Refused, why);
        } else {
            self.manifest.timer = Some(made);
        }
    }

    /// The first of several spans, with 0 as the shortest there is.
    fn first(&mut self, one: &Setting, known: Option<u64>, key: &str, how: Option<&str>) -> Option<u64> {
        if known.is_some() {
            self.refused(one, format!("[timer] {key} is one time, and is taken"));
            return known;
        }
        let (ms, _) = self.long_ms(one)?;
        let least = if key == "every_ms" { EVERY_MS_MIN } else { 0 };
        if ms < least {
            self.approximated(one, format!("[timer] {key} = {least}, the shortest there is"));
            return Some(least);
        }
        match how {
            Some(how) => self.approximated(one, format!("[timer] {key}, {how}")),
            None => self.mapped(one, format!("[timer] {key}")),
        }
        Some(ms)
    }

    /// Milliseconds of a span that may be longer than a day.
    fn long_ms(&mut self, one: &Setting) -> Option<(u64, bool)> {
        match value::span_us(&one.value) {
            Ok(Some(us)) if us.div_ceil(1000) > SPAN_MS_MAX => {
                self.refused(one, "a timer has times of at most 366 days");
                None
            }
            Ok(Some(us)) => Some((us.div_ceil(1000), false)),
            Ok(None) => {
                self.refused(one, "it would never be");
                None
            }
            Err(why) => {
                self.refused(one, why);
                None
            }
        }
    }
}
