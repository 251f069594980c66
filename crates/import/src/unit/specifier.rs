use crate::{host::Host, limits::EXPANDED_BYTES_MAX};

/// A unit's name in its parts: `postgresql@15-main.service`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnitName {
    /// `postgresql`
    pub prefix: String,
    /// `15-main`; empty for a unit that is no instance.
    pub instance: String,
    /// `service`
    pub kind: String,
}

impl UnitName {
    /// Reads `NAME.KIND` or `NAME@INSTANCE.KIND`.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (stem, kind) = name.rsplit_once('.')?;
        let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
        let legal = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if prefix.is_empty() || kind.is_empty() || name.len() > 255 || !name.chars().all(legal) {
            return None;
        }
        Some(Self { prefix: prefix.to_owned(), instance: instance.to_owned(), kind: kind.to_owned() })
    }

    /// Without the kind: `postgresql@15-main`.
    pub(crate) fn stem(&self) -> String {
        if self.instance.is_empty() {
            self.prefix.clone()
        } else {
            format!("{}@{}", self.prefix, self.instance)
        }
    }

    pub(crate) fn full(&self) -> String {
        format!("{}.{}", self.stem(), self.kind)
    }
}

/// `\x2d` and `-` undone: `-` is `/`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let escaped = (byte == b'\\').then(|| rest.escaped_byte()).flatten();
        match (byte, escaped) {
            (b'-', _) => bytes.push(b'/'),
            (_, Some(value)) => {
                bytes.push(value);
                rest.nth(2);
            }
            (other, _) => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What follows a backslash, if it is `xNN`.
trait Ahead {
    fn escaped_byte(&self) -> Option<u8>;
}

impl Ahead for std::str::Bytes<'_> {
    fn escaped_byte(&self) -> Option<u8> {
        let mut ahead = self.clone();
        if ahead.next() != Some(b'x') {
            return None;
        }
        let mut digit = || ahead.next().and_then(|b| char::from(b).to_digit(16));
        u8::try_from(digit()? * 16 + digit()?).ok()
    }
}

/// Who the specifiers speak of.
pub(crate) struct Names<'a> {
    pub unit: &'a UnitName,
    pub host: &'a dyn Host,
}

/// Puts in what `%i` and its like stand for.
pub(crate) fn expand(text: &str, names: &Names<'_>) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
        } else {
            match chars.next() {
                Some(letter) => out.push_str(&one(letter, names)?),
                // systemd keeps it.
                None => out.push('%'),
            }
        }
        if out.len() > EXPANDED_BYTES_MAX {
            return Err(format!("it grows beyond {EXPANDED_BYTES_MAX} bytes"));
        }
    }
    Ok(out)
}

fn one(letter: char, names: &Names<'_>) -> Result<String, String> {
    let unit = names.unit;
    let last = |text: &str| text.rsplit('-').next().unwrap_or(text).to_owned();
    Ok(match letter {
        '%' => "%".to_owned(),
        'i' => unit.instance.clone(),
        'I' => unescape(&unit.instance),
        'n' => unit.full(),
        'N' => unit.stem(),
        'p' => unit.prefix.clone(),
        'P' => unescape(&unit.prefix),
        'j' => last(&unit.prefix),
        'J' => unescape(&last(&unit.prefix)),
        'f' => {
            let of = if unit.instance.is_empty() { &unit.prefix } else { &unit.instance };
            format!("/{}", unescape(of).trim_start_matches('/'))
        }
        't' => "/run".to_owned(),
        'S' => "/var/lib".to_owned(),
        'C' => "/var/cache".to_owned(),
        'L' => "/var/log".to_owned(),
        'E' => "/etc".to_owned(),
        'T' => "/tmp".to_owned(),
        'V' => "/var/tmp".to_owned(),
        // The manager's user, not the service's.
        'u' | 'g' => "root".to_owned(),
        'U' | 'G' => "0".to_owned(),
        'h' => "/root".to_owned(),
        's' => "/bin/sh".to_owned(),
        'H' => names.host.host_name().ok_or("%H is the host's name, which is not known here")?,
        'l' => {
            let name = names.host.host_name().ok_or("%l is the host's name, which is not known here")?;
            name.split('.').next().unwrap_or(&name).to_owned()
        }
        'd' => return Err("%d is known when the service starts; use $CREDENTIALS_DIRECTORY".to_owned()),
        other => {
            return Err(format!(
                "%{other} is a fact of the host that is not read at import; write its value into the unit"
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Unknown;

    #[test]
    fn specifiers_speak_of_the_unit() {
        let unit = UnitName::parse("postgresql@15-main.service").unwrap();
        let names = Names { unit: &unit, host: &Unknown };
        let check = |text: &str, expected: &str| assert_eq!(expand(text, &names).unwrap(), expected);
        check("/etc/postgresql/%I/x", "/etc/postgresql/15/main/x");
        check("%i|%n|%N|%p", "15-main|postgresql@15-main.service|postgresql@15-main|postgresql");
        check("100%%|%t|%S|%C|%L|%E", "100%|/run|/var/lib|/var/cache|/var/log|/etc");
        check("%f %", "/15/main %");
        for unknown in ["%H", "%m", "%d", "%ü"] {
            assert!(expand(unknown, &names).is_err(), "{unknown}");
        }
        assert!(expand(&"x".repeat(EXPANDED_BYTES_MAX), &names).is_ok());
        assert!(expand(&"x".repeat(EXPANDED_BYTES_MAX + 1), &names).is_err());
    }

    #[test]
    fn names_have_parts() {
        let plain = UnitName::parse("cron.service").unwrap();
        assert_eq!((plain.stem(), plain.full()), ("cron".to_owned(), "cron.service".to_owned()));
        let escaped = UnitName::parse(r"x@dev-disk\x2dby.service").unwrap();
        let names = Names { unit: &escaped, host: &Unknown };
        assert_eq!(expand("%I", &names).unwrap(), "dev/disk-by");
        for wrong in ["cron", ".service", "a b.service", "@x.service", ""] {
            assert!(UnitName::parse(wrong).is_none(), "{wrong}");
        }
    }
}
