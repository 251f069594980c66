//! Times of the calendar as systemd writes them (`man systemd.time`, "Calendar events"): `Mon..Fri *-*-* 06:00`,
//! `*:0/15`, `*-02~01`, `weekly`.
//!
//! Seconds are whole. A time is meant in the zone that is passed, which is the host's, or in UTC where it says so; other
//! zones are refused. Where a clock is put forward, a time that does not exist is taken by as much later (systemd
//! leaves it out); where it is put back, a time that comes twice is taken once, but every hour means every hour that
//! passes (systemd leaves one out).
//!
//! Pure: `parse` reads a text, `next` finds the first time after another. Seconds, days and years are walked through, and
//! what cannot match is skipped whole.

mod parse;

use std::{fmt, str::FromStr};

use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::TimeZone,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of an expression.
pub const TEXT_BYTES_MAX: usize = 256;
/// Parts of one list: `0,10,20` has three.
pub const PARTS_MAX: usize = 64;
/// Years that can be named, as in systemd; nothing elapses outside of them.
pub const YEAR_MIN: i16 = 1970;
pub const YEAR_MAX: i16 = 2199;
/// Changes of the clock that one search crosses: a zone has two a year.
const CROSSINGS_MAX: usize = 400;

/// One expression, kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    text: String,
    /// Bit 0 is Monday.
    weekdays: u8,
    years: Vec<Range>,
    /// Bit 1 is January.
    months: u64,
    days: Vec<Range>,
    /// Days are counted from the end of the month; 1 is the last.
    from_end: bool,
    hours: u64,
    minutes: u64,
    seconds: u64,
    utc: bool,
}

/// `start`, `start..stop`, `start/step`, `start..stop/step`. A list without parts is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: i16,
    stop: i16,
    step: i16,
}

impl Range {
    const fn contains(self, value: i16) -> bool {
        value >= self.start && value <= self.stop && (value - self.start) % self.step == 0
    }
}

const EVERY_HOUR: u64 = (1 << 24) - 1;

const fn has(mask: u64, bit: i8) -> bool {
    mask >> bit & 1 != 0
}

impl Calendar {
    /// The first time after this one; none if there is none any more.
    #[must_use]
    pub fn next(&self, after: Timestamp, local: &TimeZone) -> Option<Timestamp> {
        let zone = if self.utc { &TimeZone::UTC } else { local };
        if self.hours == EVERY_HOUR {
            self.next_by_hours(after, zone)
        } else {
            self.next_by_clock(after, zone)
        }
    }

    /// It means the same everywhere.
    #[must_use]
    pub const fn is_utc(&self) -> bool {
        self.utc
    }

    /// By what the clock on the wall shows.
    fn next_by_clock(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut from = second_after(zone.to_datetime(after))?;
        loop {
            let shown = self.next_shown(from)?;
            let time = zone.to_ambiguous_timestamp(shown).compatible().ok()?;
            if time > after {
                return Some(time);
            }
            // The second time that the clock shows this.
            from = second_after(shown)?;
        }
    }

    /// Hour by hour as they pass: the clock is taken to run on as it did, up to where it was changed.
    fn next_by_hours(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut offset = zone.to_offset(after);
        let mut from = second_after(offset.to_datetime(after))?;
        let mut last_change = after;
        for _ in 0..CROSSINGS_MAX {
            let time = offset.to_timestamp(self.next_shown(from)?).ok()?;
            let change = zone.following(last_change).next();
            match change.filter(|change| change.timestamp() <= time) {
                None => return Some(time),
                Some(change) => {
                    last_change = change.timestamp();
                    offset = change.offset();
                    from = offset.to_datetime(change.timestamp());
                }
            }
        }
        None
    }

    /// From this one on, as a clock shows it.
    fn next_shown(&self, from: DateTime) -> Option<DateTime> {
        let mut date = from.date();
        let mut earliest = from;
        while date.year() <= YEAR_MAX {
            if !self.has_year(date.year()) {
                date = Date::new(date.year().checked_add(1)?, 1, 1).ok()?;
            } else if !has(self.months, date.month()) {
                date = date.last_of_month().tomorrow().ok()?;
            } else {
                if self.has_day(date)
                    && let Some(found) = self.time_of(date, earliest)
                {
                    return Some(found);
                }
                date = date.tomorrow().ok()?;
            }
            earliest = date.at(0, 0, 0, 0);
        }
        None
    }

    fn has_year(&self, year: i16) -> bool {
        self.years.is_empty() || self.years.iter().any(|range| range.contains(year))
    }

    fn has_day(&self, date: Date) -> bool {
        if !has(u64::from(self.weekdays), date.weekday().to_monday_zero_offset()) {
            return false;
        }
        let day = match self.from_end {
            true => i16::from(date.days_in_month()) + 1 - i16::from(date.day()),
            false => i16::from(date.day()),
        };
        let contains = |range: &Range| match self.from_end {
            // A step runs towards the end of the month, whose last day is 1.
            true => range.contains_towards_end(day),
            false => range.contains(day),
        };
        self.days.is_empty() || self.days.iter().any(contains)
    }

    fn time_of(&self, date: Date, earliest: DateTime) -> Option<DateTime> {
        let (first_hour, first_minute) = (earliest.hour(), earliest.minute());
        for hour in (first_hour..24).filter(|hour| has(self.hours, *hour)) {
            let minutes = if hour == first_hour { first_minute } else { 0 };
            for minute in (minutes..60).filter(|minute| has(self.minutes, *minute)) {
                let is_first = hour == first_hour && minute == first_minute;
                let seconds = if is_first { earliest.second() } else { 0 };
                if let Some(second) = (seconds..60).find(|second| has(self.seconds, *second)) {
                    return Some(date.at(hour, minute, second, 0));
                }
            }
        }
        None
    }
}

impl Range {
    /// Of days counted from the end: `07/1` begins at the seventh last and goes on to the last.
    const fn contains_towards_end(self, day: i16) -> bool {
        if self.stop < PAST_ANY_DAY {
            return self.contains(day);
        }
        day <= self.start && (self.start - day) % self.step == 0
    }
}

/// A day's range without an end.
const PAST_ANY_DAY: i16 = 31 + 1;

fn second_after(shown: DateTime) -> Option<DateTime> {
    let whole = shown.date().at(shown.hour(), shown.minute(), shown.second(), 0);
    whole.checked_add(jiff::Span::new().seconds(1)).ok()
}

impl FromStr for Calendar {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse::parse(text)
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Calendar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Calendar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
