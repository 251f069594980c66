//! Seconds since 1970 as certificates write them (RFC 5280 §4.1.2.5): two digits of the year until 2049, four from 2050.

use crate::der::{GENERALIZED_TIME, UTC_TIME, element};

const DAY_S: u64 = 86_400;
/// The first second of the year 10000, which has no form.
const END_S: u64 = 253_402_300_800;

/// None from the year 10000 on.
pub(crate) fn write(seconds: u64) -> Option<Vec<u8>> {
    if seconds >= END_S {
        return None;
    }
    let (year, month, day) = date(seconds / DAY_S);
    let of_day = seconds % DAY_S;
    let rest = format!("{month:02}{day:02}{:02}{:02}{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60);
    Some(match year {
        ..2050 => element(UTC_TIME, format!("{:02}{rest}", year % 100).as_bytes()),
        _ => element(GENERALIZED_TIME, format!("{year:04}{rest}").as_bytes()),
    })
}

/// The reverse; what it makes of bytes that `write` does not make is not said.
pub(crate) fn read(tag: u8, content: &[u8]) -> Option<u64> {
    let digits = content.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number =
        |from: usize, to: usize| std::str::from_utf8(digits.get(from..to)?).ok()?.parse::<u64>().ok();
    let (year, at) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let short = number(0, 2)?;
            (if short < 50 { 2000 + short } else { 1900 + short }, 2)
        }
        (GENERALIZED_TIME, 14) => (number(0, 4)?, 4),
        _ => return None,
    };
    let (month, day) = (number(at, at + 2)?, number(at + 2, at + 4)?);
    let of_day = number(at + 4, at + 6)? * 3600 + number(at + 6, at + 8)? * 60 + number(at + 8, at + 10)?;
    Some(days(year, month, day)?.checked_mul(DAY_S)? + of_day)
}

/// The calendar of 400 years has 146 097 days; years begin in March here, so that leap days end them.
const CYCLE_DAYS: u64 = 146_097;
/// From the first of March of the year 0 to 1970.
const EPOCH_DAYS: u64 = 719_468;

fn date(days: u64) -> (u64, u64, u64) {
    let since = days + EPOCH_DAYS;
    let (cycle, day) = (since / CYCLE_DAYS, since % CYCLE_DAYS);
    let year_of_cycle = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (cycle * 400 + year_of_cycle + u64::from(month <= 2), month, day_of_month)
}

fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year.checked_sub(u64::from(month <= 2))?;
    let (cycle, year_of_cycle) = (year / 400, year % 400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_cycle = year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year;
    (cycle * CYCLE_DAYS + day_of_cycle).checked_sub(EPOCH_DAYS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// By `date -u -d @N`.
    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "700101000000Z"),
            (951_782_399, "000228235959Z"),
            (951_782_400, "000229000000Z"),
            (951_868_800, "000301000000Z"),
            (1_795_676_400, "261126070000Z"),
            (2_524_607_999, "491231235959Z"),
            (2_524_608_000, "20500101000000Z"),
            (4_107_542_399, "21000228235959Z"),
            (4_107_542_400, "21000301000000Z"),
            (END_S - 1, "99991231235959Z"),
        ] {
            let bytes = write(seconds).unwrap();
            assert_eq!(&bytes[2..], text.as_bytes());
            assert_eq!(read(bytes[0], &bytes[2..]), Some(seconds));
        }
        assert_eq!(write(END_S), None);
    }

    #[test]
    fn what_is_no_time_is_none() {
        for bad in [
            "",
            "Z",
            "700101000000",
            "70010100000Z",
            "701301000000Z",
            "700100000000Z",
            "7001320000001Z",
            "69123100000xZ",
        ] {
            assert_eq!(read(UTC_TIME, bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(read(UTC_TIME, b"691231235959Z"), None, "before 1970");
        assert_eq!(read(GENERALIZED_TIME, b"00000101000000Z"), None);
        assert_eq!(read(INTEGER_TAG, b"700101000000Z"), None);
    }
    const INTEGER_TAG: u8 = crate::der::INTEGER;

    proptest! {
        #[test]
        fn every_second_is_read_back(seconds in 0..END_S) {
            let bytes = write(seconds).unwrap();
            prop_assert_eq!(read(bytes[0], &bytes[2..]), Some(seconds));
        }

        #[test]
        fn any_digits_are_read_without_a_panic(digits in "[0-9]{12,14}") {
            let text = format!("{digits}Z");
            for tag in [UTC_TIME, GENERALIZED_TIME] {
                let _ = read(tag, text.as_bytes());
            }
        }
    }
}
