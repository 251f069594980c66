//! From a text to a calendar, or a sentence that says what is wrong with it.

use super::{Calendar, PARTS_MAX, PAST_ANY_DAY, Range, TEXT_BYTES_MAX, YEAR_MAX, YEAR_MIN};

/// What systemd has names for.
const SHORTHANDS: [(&str, &str); 13] = [
    ("minutely", "*-*-* *:*:00"),
    ("hourly", "*-*-* *:00:00"),
    ("daily", "*-*-* 00:00:00"),
    ("monthly", "*-*-01 00:00:00"),
    ("weekly", "Mon *-*-* 00:00:00"),
    ("yearly", "*-01-01 00:00:00"),
    ("annually", "*-01-01 00:00:00"),
    ("quarterly", "*-01,04,07,10-01 00:00:00"),
    ("semiannually", "*-01,07-01 00:00:00"),
    ("semi-annually", "*-01,07-01 00:00:00"),
    ("biannually", "*-01,07-01 00:00:00"),
    ("bi-annually", "*-01,07-01 00:00:00"),
    ("anually", "*-01-01 00:00:00"),
];
const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const ANY_WEEKDAY: u8 = 0x7f;
/// Two digits are a year of this century below this, and of the last one from it on.
const CENTURY_AT: i16 = 70;
/// Days counted from the end of a month: every month has them.
const FROM_END_MAX: i16 = 28;

pub(super) fn parse(text: &str) -> Result<Calendar, String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!(
            "a calendar time has at most {TEXT_BYTES_MAX} bytes, this one has {}",
            text.len()
        ));
    }
    read(text).map_err(|why| {
        format!("{text:?} is no calendar time: {why}; see `man systemd.time`, for example \"Mon..Fri *-*-* 06:00\"")
    })
}

fn read(text: &str) -> Result<Calendar, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (plain, utc) = match lower.strip_suffix(" utc") {
        Some(plain) => (plain.trim_end(), true),
        None => (lower.as_str(), false),
    };
    let long =
        SHORTHANDS.iter().find(|(short, _)| *short == plain).map(|(_, long)| long.to_ascii_lowercase());
    let mut words: Vec<&str> = long.as_deref().unwrap_or(plain).split_whitespace().collect();
    let mut weekdays = ANY_WEEKDAY;
    if let Some(first) = words.first().filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic())) {
        weekdays = days_of_week(first)?;
        words.remove(0);
    }
    if let Some(zone) = words.iter().find(|word| word.contains(|c: char| c.is_ascii_alphabetic())) {
        return Err(format!(
            "{zone:?} is no time zone that can be named; allowed is UTC, else the host's is meant"
        ));
    }
    let (date, time) = match words[..] {
        [] if weekdays == ANY_WEEKDAY => return Err("it is empty".to_owned()),
        [] => (None, None),
        [time] if time.contains(':') => (None, Some(time)),
        [date] => (Some(date), None),
        [date, time] => (Some(date), Some(time)),
        _ => return Err("it has more than weekdays, a date, a time and a zone".to_owned()),
    };
    let (years, months, days, from_end) = date.map_or(Ok(Date::default()), read_date)?;
    let (hours, minutes, seconds) = time.map_or(Ok((1, 1, 1)), read_time)?;
    Ok(Calendar {
        text: text.trim().to_owned(),
        weekdays,
        years,
        months: mask(&months, 1, 12),
        days,
        from_end,
        hours,
        minutes,
        seconds,
        utc,
    })
}

/// Years, months, days, and whether these are counted from the end.
type Date = (Vec<Range>, Vec<Range>, Vec<Range>, bool);

fn read_date(text: &str) -> Result<Date, String> {
    let refuse = || {
        format!(
            "{text:?} is no date; a date is YEAR-MONTH-DAY, or MONTH-DAY, or with `~` before a day from the end"
        )
    };
    let (rest, day, from_end) = match (text.rsplit_once('~'), text.rsplit_once('-')) {
        (Some((rest, day)), _) => (rest, day, true),
        (None, Some((rest, day))) => (rest, day, false),
        (None, None) => return Err(refuse()),
    };
    let (year, month) = rest.split_once('-').unwrap_or(("*", rest));
    if month.contains('-') {
        return Err(refuse());
    }
    let mut years = list("year", year, (0, YEAR_MAX), YEAR_MAX)?;
    for range in &mut years {
        let is_open = range.stop == YEAR_MAX;
        range.start = of_century(range.start);
        range.stop = if is_open { YEAR_MAX } else { of_century(range.stop) };
        if range.start < YEAR_MIN || range.stop < range.start {
            return Err(format!("years are {YEAR_MIN} to {YEAR_MAX}"));
        }
    }
    let months = list("month", month, (1, 12), 12)?;
    let days = match from_end {
        true => list("day from the end", day, (1, FROM_END_MAX), PAST_ANY_DAY)?,
        false => list("day", day, (1, 31), 31)?,
    };
    Ok((years, months, days, from_end))
}

const fn of_century(year: i16) -> i16 {
    match year {
        0..CENTURY_AT => year + 2000,
        CENTURY_AT..100 => year + 1900,
        year => year,
    }
}

fn read_time(text: &str) -> Result<(u64, u64, u64), String> {
    let mut parts = text.split(':');
    let (Some(hour), Some(minute), second, None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(format!("{text:?} is no time; a time is HOUR:MINUTE or HOUR:MINUTE:SECOND"));
    };
    let seconds = match second {
        Some(second) if second.contains('.') && !second.contains("..") => {
            return Err("seconds are whole here".to_owned());
        }
        Some(second) => mask(&list("second", second, (0, 59), 59)?, 0, 59),
        None => 1,
    };
    let hours = mask(&list("hour", hour, (0, 23), 23)?, 0, 23);
    Ok((hours, mask(&list("minute", minute, (0, 59), 59)?, 0, 59), seconds))
}

/// `*` is the empty list. `open` is the end of a range that has a step and no end.
fn list(what: &str, text: &str, (min, max): (i16, i16), open: i16) -> Result<Vec<Range>, String> {
    if text == "*" {
        return Ok(Vec::new());
    }
    let parts: Vec<&str> = text.split(',').collect();
    if parts.len() > PARTS_MAX {
        return Err(format!("a list has at most {PARTS_MAX} parts"));
    }
    let refuse = |part: &str| {
        format!(
            "{part:?} is no {what}; allowed are numbers from {min} to {max}, `A..B`, `A/STEP`, `A..B/STEP`, lists of them, and `*` alone"
        )
    };
    let number = |text: &str, part: &str| -> Result<i16, String> {
        let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
        let value = if digits { text.parse().ok() } else { None };
        value.filter(|value| (min..=max).contains(value)).ok_or_else(|| refuse(part))
    };
    let one = |part: &str| -> Result<Range, String> {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let (start, stop) = range.split_once("..").map_or((range, None), |(start, stop)| (start, Some(stop)));
        let start = number(start, part)?;
        let stop = stop.map(|stop| number(stop, part)).transpose()?;
        let limit = stop.unwrap_or(max);
        let step: Option<i16> = match step {
            None => None,
            Some(step) => {
                let step = step.parse().ok().filter(|step| *step > 0);
                // Counted from the end, a step without an end runs the other way.
                let room = if stop.is_none() && open == PAST_ANY_DAY { start - 1 } else { limit - start };
                Some(step.filter(|step| *step <= room).ok_or_else(|| refuse(part))?)
            }
        };
        let range = match (stop, step) {
            (None, None) => Range { start, stop: start, step: 1 },
            (Some(stop), step) => Range { start, stop, step: step.unwrap_or(1) },
            (None, Some(step)) => Range { start, stop: open, step },
        };
        if range.start > range.stop { Err(refuse(part)) } else { Ok(range) }
    };
    parts.into_iter().map(one).collect()
}

fn mask(list: &[Range], min: i16, max: i16) -> u64 {
    let has = |value: &i16| list.is_empty() || list.iter().any(|range| range.contains(*value));
    (min..=max).filter(has).fold(0, |mask, value| mask | 1 << value)
}

fn days_of_week(text: &str) -> Result<u8, String> {
    let refuse = || {
        format!(
            "{text:?} names no days of the week; they are Mon to Sun, lists and ranges (`Mon..Fri`) of them"
        )
    };
    let number = |name: &str| WEEKDAYS.iter().position(|day| *day == name || day.get(..3) == Some(name));
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once("..").or_else(|| part.split_once('-')).unwrap_or((part, part));
        let (first, last) = (number(first).ok_or_else(refuse)?, number(last).ok_or_else(refuse)?);
        if first > last {
            return Err(refuse());
        }
        days |= (first..=last).fold(0, |days, day| days | 1 << day);
    }
    Ok(days)
}
