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

/// `500ms`, `10s`, `5m`, `2h`, in milliseconds; plain numbers are seconds.
pub fn parse_duration_ms(text: &str) -> Result<u64> {
    let (number, factor) =
        split(text, &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("", 1_000)])?;
    number.checked_mul(u64::from(factor)).with_context(|| format!("{text:?} is too long"))
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
        assert!(parse_duration_ms("soon").is_err());
    }
}
