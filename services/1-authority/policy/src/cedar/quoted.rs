//! Cedar's strings and the patterns of its `like`: Rust's escapes, and `\*` in a pattern for the character itself.

use super::Fault;

/// A part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Char(char),
    /// Any run of characters, across separators.
    Star,
}

/// What stands between the quotes, `at` being where that begins.
pub(super) fn string(raw: &str, at: usize) -> Result<String, Fault> {
    let mut text = String::with_capacity(raw.len());
    unescape(raw, at, |c| {
        match c {
            Unescaped::Char(c) => text.push(c),
            Unescaped::EscapedStar => return false,
        }
        true
    })?;
    Ok(text)
}

/// The same for a pattern. A star that is written as a code (`\u{2a}`) is a star like any other there.
pub(super) fn pattern(raw: &str, at: usize) -> Result<Vec<Piece>, Fault> {
    let mut pieces = Vec::with_capacity(raw.len());
    unescape(raw, at, |c| {
        match c {
            Unescaped::Char('*') if pieces.last() == Some(&Piece::Star) => {}
            Unescaped::Char('*') => pieces.push(Piece::Star),
            Unescaped::Char(c) => pieces.push(Piece::Char(c)),
            Unescaped::EscapedStar => pieces.push(Piece::Char('*')),
        }
        true
    })?;
    Ok(pieces)
}

enum Unescaped {
    Char(char),
    EscapedStar,
}

fn unescape(raw: &str, at: usize, mut take: impl FnMut(Unescaped) -> bool) -> Result<(), Fault> {
    let mut rest = raw.char_indices();
    while let Some((offset, c)) = rest.next() {
        let wrong = |what: &str| Err(Fault::new(at + offset, what.to_owned()));
        let found = match c {
            '\r' => return wrong("a carriage return in a string must be written as \\r"),
            '\\' => match escape(&mut rest) {
                Some(found) => found,
                None => return wrong("unknown escape in a string"),
            },
            other => Unescaped::Char(other),
        };
        if !take(found) {
            return wrong("\\* is an escape of patterns alone");
        }
    }
    Ok(())
}

fn escape(rest: &mut std::str::CharIndices<'_>) -> Option<Unescaped> {
    let (_, c) = rest.next()?;
    Some(Unescaped::Char(match c {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        '0' => '\0',
        '\\' | '\'' | '"' => c,
        '*' => return Some(Unescaped::EscapedStar),
        'x' => {
            let (high, low) = (rest.next()?.1.to_digit(16)?, rest.next()?.1.to_digit(16)?);
            char::from_u32(high * 16 + low).filter(char::is_ascii)?
        }
        'u' => code(rest)?,
        _ => return None,
    }))
}

/// `{`, one to six digits with underscores behind the first, `}`.
fn code(rest: &mut std::str::CharIndices<'_>) -> Option<char> {
    if rest.next()?.1 != '{' {
        return None;
    }
    let mut value = rest.next()?.1.to_digit(16)?;
    let mut digits = 1;
    loop {
        match rest.next()?.1 {
            '}' => return char::from_u32(value),
            '_' => {}
            c => {
                digits += 1;
                let digit = c.to_digit(16).filter(|_| digits <= 6)?;
                value = value * 16 + digit;
            }
        }
    }
}

/// A string with its quotes.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    text.chars().for_each(|c| push(&mut quoted, c));
    quoted.push('"');
    quoted
}

/// A pattern with its quotes.
pub(super) fn quote_pattern(pieces: &[Piece]) -> String {
    let mut quoted = String::with_capacity(pieces.len() + 2);
    quoted.push('"');
    for piece in pieces {
        match piece {
            Piece::Star => quoted.push('*'),
            Piece::Char('*') => quoted.push_str("\\*"),
            Piece::Char(c) => push(&mut quoted, *c),
        }
    }
    quoted.push('"');
    quoted
}

/// What cannot be seen, or turns the direction of what is, is written as its code.
fn push(quoted: &mut String, c: char) {
    match c {
        '"' | '\\' => quoted.extend(['\\', c]),
        ' '..='~' => quoted.push(c),
        c if c.is_alphanumeric() => quoted.push(c),
        c => quoted.extend(c.escape_unicode()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_those_of_cedar() {
        for (raw, expected) in [
            ("", Some("")),
            ("a\\n\\r\\t\\0\\\\\\'\\\"", Some("a\n\r\t\0\\'\"")),
            ("\\x41\\u{e9}\\u{1_F600}", Some("Aé😀")),
            ("*\n", Some("*\n")),
            ("\\*", None),
            ("\\x80", None),
            ("\\x4", None),
            ("\\u{}", None),
            ("\\u{_1}", None),
            ("\\u{1234567}", None),
            ("\\u{d800}", None),
            ("\\u41", None),
            ("\\q", None),
            ("\r", None),
        ] {
            assert_eq!(string(raw, 0).ok().as_deref(), expected, "{raw:?}");
        }
        assert_eq!(string("ab\\q", 10).unwrap_err().at, 12);
    }

    #[test]
    fn a_star_in_a_pattern_is_literal_only_behind_a_backslash() {
        use Piece::{Char, Star};
        assert_eq!(pattern("a**\\*", 0), Ok(vec![Char('a'), Star, Char('*')]));
        assert_eq!(pattern("\\u{2a}\\x2A", 0), Ok(vec![Star]));
        assert_eq!(quote_pattern(&[Star, Char('*'), Char('"')]), "\"*\\*\\\"\"");
    }

    #[test]
    fn what_is_quoted_reads_back() {
        for text in ["", "plain", "a\"b\\c*", "\0\r\n\u{202e}é\u{7f}"] {
            let quoted = quote(text);
            assert!(!quoted.contains(char::is_control) && !quoted.contains('\u{202e}'), "{quoted:?}");
            assert_eq!(string(quoted.get(1..quoted.len() - 1).unwrap(), 0).as_deref(), Ok(text));
        }
    }
}
