//! Values with a form: truth, time spans, sizes, capabilities, signals.

/// systemd's words for true and false.
pub(crate) fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

const MONTH_US: f64 = 2_629_800_000_000.0;
const YEAR_US: f64 = 31_557_600_000_000.0;

/// Microseconds of a time span such as `5min 20s`, `1.5h` or `90`; `None` for `infinity`.
pub(crate) fn span_us(value: &str) -> Result<Option<u64>, String> {
    let wrong = || format!("{value:?} is no time span");
    if value.trim() == "infinity" {
        return Ok(None);
    }
    let mut total = 0.0f64;
    let mut rest = value.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let number: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        rest = rest.get(number.len()..).unwrap_or_default().trim_start();
        let unit: String = rest.chars().take_while(|c| c.is_alphabetic()).collect();
        rest = rest.get(unit.len()..).unwrap_or_default().trim_start();
        let factor = match unit.as_str() {
            "" | "s" | "sec" | "second" | "seconds" => 1e6,
            "us" | "usec" | "µs" | "μs" => 1.0,
            "ms" | "msec" => 1e3,
            "m" | "min" | "minute" | "minutes" => 6e7,
            "h" | "hr" | "hour" | "hours" => 3.6e9,
            "d" | "day" | "days" => 8.64e10,
            "w" | "week" | "weeks" => 6.048e11,
            "M" | "month" | "months" => MONTH_US,
            "y" | "year" | "years" => YEAR_US,
            _ => return Err(wrong()),
        };
        total += number.parse::<f64>().map_err(|_| wrong())? * factor;
    }
    // Beyond 2^53 microseconds, 285 years, nobody means a time.
    if !(0.0..9.0e15).contains(&total) {
        return Err(wrong());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "its range was just checked")]
    Ok(Some(total.round() as u64))
}

/// Bytes of a size such as `512M`; `None` for `infinity`. A percentage is an error that says so.
pub(crate) fn bytes(value: &str) -> Result<Option<u64>, String> {
    let value = value.trim();
    if value == "infinity" {
        return Ok(None);
    }
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    let factor: u64 = match value.get(digits.len()..).unwrap_or_default().trim() {
        "" | "B" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        "P" => 1 << 50,
        _ => return Err(format!("{value:?} is no size in bytes, K, M, G or T")),
    };
    let number = digits.parse::<u64>().map_err(|_| format!("{value:?} is no size"))?;
    number.checked_mul(factor).map(Some).ok_or_else(|| format!("{value:?} is too large"))
}

/// `SIGTERM` or `TERM` as a manifest writes it, if it is one that a manifest knows.
pub(crate) fn signal(value: &str) -> Option<&'static str> {
    let name = value.trim().to_ascii_uppercase();
    Some(match name.strip_prefix("SIG").unwrap_or(&name) {
        "TERM" | "15" => "term",
        "QUIT" | "3" => "quit",
        "INT" | "2" => "int",
        "HUP" | "1" => "hup",
        "USR1" | "10" => "usr1",
        "USR2" | "12" => "usr2",
        "WINCH" | "28" => "winch",
        _ => return None,
    })
}

/// A mode as a manifest writes it: four octal digits.
pub(crate) fn octal(value: &str) -> Option<String> {
    let digits = value.trim();
    let number = u32::from_str_radix(digits, 8).ok().filter(|number| *number <= 0o7777)?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| format!("{number:04o}"))
}

/// `CAP_NET_BIND_SERVICE` as a manifest writes it.
pub(crate) fn capability(value: &str) -> Option<&'static str> {
    let name = value.to_ascii_lowercase();
    let name = name.strip_prefix("cap_").unwrap_or(&name);
    base::LINUX_CAPABILITIES.into_iter().find(|known| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_units_and_add_up() {
        let check = |value: &str, us: u64| assert_eq!(span_us(value), Ok(Some(us)), "{value}");
        check("90", 90_000_000);
        check("5min 20s", 320_000_000);
        check("1h30min", 5_400_000_000);
        check("1.5h", 5_400_000_000);
        check("100ms", 100_000);
        check("2 days", 172_800_000_000);
        check("1w", 604_800_000_000);
        check("0", 0);
        assert_eq!(span_us("infinity"), Ok(None));
        for wrong in ["", "x", "5 parsecs", "-1", "1..2", "9999999y"] {
            assert!(span_us(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(bytes("512M"), Ok(Some(512 << 20)));
        assert_eq!(bytes("10"), Ok(Some(10)));
        assert_eq!(bytes("infinity"), Ok(None));
        for wrong in ["", "50%", "1X", "99999999999P"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn modes_have_four_digits() {
        assert_eq!((octal("755").as_deref(), octal("02755").as_deref()), (Some("0755"), Some("2755")));
        for wrong in ["", "8", "17777", "+7", "u+x"] {
            assert!(octal(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn signals_and_capabilities_are_known_by_name() {
        assert_eq!((signal("SIGQUIT"), signal("usr1"), signal("KILL")), (Some("quit"), Some("usr1"), None));
        assert_eq!(capability("CAP_SYS_TIME"), Some("sys_time"));
        assert_eq!(capability("CAP_NONE"), None);
        assert_eq!((boolean("On"), boolean("f"), boolean("maybe")), (Some(true), Some(false), None));
    }
}
