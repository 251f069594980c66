//! Sizes and times as people write them on a command line.

use anyhow::{Context, Result, bail};

/// `64M`, `512K`, `2G`, or plain bytes; powers of 1024.
pub fn parse_size(text: &str) -> Result<u64> {
    let (number, shift) = split(text, &[("K", 10), ("M", 20), ("G", 30), ("T", 40), ("", 0)])?;
    number
        .checked_shl(shift)
        .filter(|bytes| bytes >> shift == number)
        .with_context(|| format!("{text:?} is too large"))
}

/// `500ms`, `10s`, `5m`, `2h`, `7d`, in milliseconds; plain numbers are seconds.
pub fn parse_duration_ms(text: &str) -> Result<u64> {
    let (number, factor) = split(
        text,
        &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("", 1_000)],
    )?;
    number.checked_mul(u64::from(factor)).with_context(|| format!("{text:?} is too long"))
}

/// `2`, `0.5`, `1.25`: cores, in thousandths.
pub fn parse_millicores(text: &str) -> Result<u32> {
    let wrong = || format!("{text:?} is no number of cores; write for example 2 or 0.5");
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    if part.is_empty() || part.len() > 3 || !part.bytes().all(|digit| digit.is_ascii_digit()) {
        bail!("{}, with at most three digits after the point", wrong());
    }
    let thousandths: u32 = format!("{part:0<3}").parse().with_context(wrong)?;
    let whole: u32 = whole.parse().with_context(wrong)?;
    let cores = whole.checked_mul(1_000).and_then(|whole| whole.checked_add(thousandths));
    cores.filter(|cores| *cores > 0).with_context(wrong)
}

/// A time of the wall clock, milliseconds since 1970, in UTC and to the second.
pub fn date(time_ms: u64) -> String {
    let time = i64::try_from(time_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| "-".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

fn split(text: &str, units: &[(&str, u32)]) -> Result<(u64, u32)> {
    for (unit, value) in units {
        if let Some(number) = text.strip_suffix(unit)
            && let Ok(number) = number.parse()
        {
            return Ok((number, *value));
        }
    }
    let known: Vec<&str> = units.iter().map(|(unit, _)| *unit).filter(|unit| !unit.is_empty()).collect();
    bail!("{text:?} is not a whole number with one of the units {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_units_and_bounds() {
        assert_eq!(parse_size("64M").unwrap(), 64 << 20);
        assert_eq!(parse_size("7").unwrap(), 7);
        assert!(parse_size("18446744073709551615K").is_err());
        assert!(parse_size("1.5G").is_err());
        assert_eq!(parse_duration_ms("500ms").unwrap(), 500);
        assert_eq!(parse_duration_ms("2").unwrap(), 2_000);
        assert_eq!(parse_duration_ms("7d").unwrap(), 604_800_000);
        assert!(parse_duration_ms("soon").is_err());
    }

    #[test]
    fn dates_are_readable_and_an_impossible_one_is_none() {
        assert_eq!(date(1_795_000_000_999), "2026-11-18 11:06:40");
        assert_eq!(date(u64::MAX), "-");
    }

    #[test]
    fn cores_have_three_digits_after_the_point_at_most() {
        for (text, millicores) in [("2", 2_000), ("0.5", 500), ("1.25", 1_250), ("0.001", 1)] {
            assert_eq!(parse_millicores(text).unwrap(), millicores);
        }
        for text in ["0", "0.0", "-1", "1.", ".5", "1.2345", "x", "4294968"] {
            assert!(parse_millicores(text).is_err(), "{text}");
        }
    }
}
