use thiserror::Error;

use crate::{
    limits::{FILE_BYTES_MAX, SETTINGS_MAX, VALUE_BYTES_MAX},
    report::Place,
};

/// One `Key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub place: Place,
    pub section: String,
    pub key: String,
    /// Continuation lines joined by a space; nothing unquoted.
    pub value: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum UnitError {
    #[error("{0}: a file has at most {FILE_BYTES_MAX} bytes, this one has {1}; is it a unit?")]
    FileTooLong(String, usize),
    #[error("{0}: a unit has at most {SETTINGS_MAX} settings")]
    TooManySettings(Place),
    #[error("{0}: a value has at most {VALUE_BYTES_MAX} bytes")]
    ValueTooLong(Place),
    #[error("{0}: a NUL byte is in no unit")]
    Nul(Place),
    #[error("{0}: a line is `Key=value`, `[Section]` or a comment, not {1:?}")]
    NoSetting(Place, String),
    #[error("{0}: {1:?} stands before any [Section]")]
    NoSection(Place, String),
}

/// Reads the text of a unit or a drop-in: sections, comments, continuation lines, as systemd.syntax(7) has them.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Setting>, UnitError> {
    if text.len() > FILE_BYTES_MAX {
        return Err(UnitError::FileTooLong(file.to_owned(), text.len()));
    }
    let mut settings: Vec<Setting> = Vec::new();
    let mut section: Option<String> = None;
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let place = Place { file: file.to_owned(), line: index + 1 };
        let line = line.trim_start();
        if line.contains('\0') {
            return Err(UnitError::Nul(place));
        }
        if line.trim_end().is_empty() || is_comment(line) {
            continue;
        }
        let mut joined = String::new();
        let mut rest = line;
        // A backslash at the end joins with the next line; comments in between are passed over.
        while let Some(begun) = rest.strip_suffix('\\') {
            joined.push_str(begun);
            joined.push(' ');
            if joined.len() > VALUE_BYTES_MAX {
                return Err(UnitError::ValueTooLong(place));
            }
            rest = lines
                .by_ref()
                .map(|(_, line)| line.trim_start())
                .find(|line| !is_comment(line))
                .unwrap_or("");
        }
        joined.push_str(rest);
        let line = joined.trim();
        if joined.len() > VALUE_BYTES_MAX {
            return Err(UnitError::ValueTooLong(place));
        }
        if joined.contains('\0') {
            return Err(UnitError::Nul(place));
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = Some(name.to_owned());
            continue;
        }
        let short = || line.chars().take(60).collect::<String>();
        let Some((key, value)) = line.split_once('=') else {
            return Err(UnitError::NoSetting(place, short()));
        };
        let key = key.trim();
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
            return Err(UnitError::NoSetting(place, short()));
        }
        let Some(section) = section.clone() else { return Err(UnitError::NoSection(place, short())) };
        if settings.len() == SETTINGS_MAX {
            return Err(UnitError::TooManySettings(place));
        }
        settings.push(Setting { place, section, key: key.to_owned(), value: value.trim().to_owned() });
    }
    Ok(settings)
}

fn is_comment(line: &str) -> bool {
    line.starts_with(['#', ';'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Vec<(String, String, String, usize)> {
        let settings = parse("f", text).unwrap();
        settings.into_iter().map(|s| (s.section, s.key, s.value, s.place.line)).collect()
    }

    #[test]
    fn sections_settings_comments_and_blank_lines() {
        let text =
            "# a\n; b\n\n[Unit]\nDescription = x = y \n  After=a\n[Service]\nExecStart=/x # no comment\nA=\n";
        let of = |s: &str, k: &str, v: &str, l| (s.to_owned(), k.to_owned(), v.to_owned(), l);
        assert_eq!(
            plain(text),
            [
                of("Unit", "Description", "x = y", 5),
                of("Unit", "After", "a", 6),
                of("Service", "ExecStart", "/x # no comment", 8),
                of("Service", "A", "", 9)
            ]
        );
    }

    #[test]
    fn a_backslash_joins_lines_and_passes_over_comments() {
        let text = "[S]\nA=one \\\n# not this\n  two\\\nthree\nB=x\nC=y\\";
        let values: Vec<_> =
            plain(text).into_iter().map(|(_, key, value, line)| (key, value, line)).collect();
        let of = |k: &str, v: &str, l| (k.to_owned(), v.to_owned(), l);
        assert_eq!(values, [of("A", "one  two three", 2), of("B", "x", 6), of("C", "y", 7)]);
    }

    #[test]
    fn what_is_no_unit_is_named_with_its_line() {
        let refused = |text: &str| parse("f.service", text).unwrap_err().to_string();
        assert!(refused("[S]\nwhat\n").starts_with("f.service:2: a line is"));
        assert!(refused("A=b\n").starts_with("f.service:1: \"A=b\" stands before"));
        assert!(refused("[S]\nA b=c").starts_with("f.service:2"));
        assert!(refused("[S]\nA=\0").starts_with("f.service:2: a NUL"));
    }

    #[test]
    fn limits_hold_at_and_one_past() {
        let of_bytes = |bytes: usize| format!("[S]\n#{}", "x".repeat(bytes - 5));
        assert!(parse("f", &of_bytes(FILE_BYTES_MAX)).is_ok());
        assert!(matches!(parse("f", &of_bytes(FILE_BYTES_MAX + 1)), Err(UnitError::FileTooLong(..))));
        let of_settings = |count: usize| format!("[S]\n{}", "A=1\n".repeat(count));
        assert_eq!(parse("f", &of_settings(SETTINGS_MAX)).unwrap().len(), SETTINGS_MAX);
        assert!(matches!(parse("f", &of_settings(SETTINGS_MAX + 1)), Err(UnitError::TooManySettings(_))));
        let of_value = |bytes: usize| format!("[S]\nA={}", "x".repeat(bytes - 2));
        assert!(parse("f", &of_value(VALUE_BYTES_MAX)).is_ok());
        assert!(matches!(parse("f", &of_value(VALUE_BYTES_MAX + 1)), Err(UnitError::ValueTooLong(_))));
        let joined = format!("[S]\nA={}", "x\\\n".repeat(VALUE_BYTES_MAX / 2));
        assert!(matches!(parse("f", &joined), Err(UnitError::ValueTooLong(_))));
    }
}
