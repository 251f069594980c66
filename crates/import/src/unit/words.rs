//! Words of a value as systemd splits and unescapes them, and the lines of an environment file.

use crate::limits::WORDS_MAX;

/// A word, and whether it was written without quotes and escapes: only such a `;` separates commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub text: String,
    pub plain: bool,
}

/// Splits at white space; `'…'` and `"…"` hold together, C escapes are read.
pub(crate) fn split(value: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut chars = value.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(words);
        }
        if words.len() == WORDS_MAX {
            return Err(format!("more than {WORDS_MAX} words"));
        }
        let mut word = Word { text: String::new(), plain: true };
        let mut quote: Option<char> = None;
        loop {
            match (chars.next(), quote) {
                (None, None) => break,
                (None, Some(quote)) => return Err(format!("a {quote} is not closed")),
                (Some(c), Some(open)) if c == open => quote = None,
                (Some('\\'), _) => {
                    word.plain = false;
                    escape(&mut chars, &mut word.text)?;
                }
                (Some(c), None) if c == '"' || c == '\'' => {
                    word.plain = false;
                    quote = Some(c);
                }
                (Some(c), None) if c.is_ascii_whitespace() => break,
                (Some(c), _) => word.text.push(c),
            }
        }
        words.push(word);
    }
}

fn escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, into: &mut String) -> Result<(), String> {
    let Some(c) = chars.next() else { return Err("a \\ stands at the end".to_owned()) };
    let mut number = |digits: usize, radix: u32, first: Option<char>| -> Result<char, String> {
        let mut value = first.and_then(|c| c.to_digit(radix)).unwrap_or(0);
        for _ in 0..digits {
            let digit = chars.next_if(|c| c.is_digit(radix)).and_then(|c| c.to_digit(radix));
            let Some(digit) = digit else { return Err(format!("\\{c} lacks digits")) };
            value = value * radix + digit;
        }
        // Bytes above 127 would be parts of UTF-8, which no unit of ours has written so.
        let limit = if digits > 3 { u32::MAX } else { 0x7f };
        match char::from_u32(value).filter(|c| *c != '\0' && value <= limit) {
            Some(c) => Ok(c),
            None => Err(format!("\\{c} with {value:#x} is no character that a manifest can hold")),
        }
    };
    let read = match c {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        's' => ' ',
        'x' => number(2, 16, None)?,
        'u' => number(4, 16, None)?,
        'U' => number(8, 16, None)?,
        '0'..='7' => number(2, 8, Some(c))?,
        '\\' | '"' | '\'' | ';' => c,
        // systemd keeps what it does not know, and warns.
        other => {
            into.extend(['\\', other]);
            return Ok(());
        }
    };
    into.push(read);
    Ok(())
}

/// The texts of the words.
pub(crate) fn texts(value: &str) -> Result<Vec<String>, String> {
    Ok(split(value)?.into_iter().map(|word| word.text).collect())
}

/// `NAME=VALUE` lines of an environment file, as systemd.exec(5) has them. Lines that are none are passed over, as there.
pub(crate) fn environment_file(text: &str) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut chars = text.chars().peekable();
    while chars.peek().is_some() {
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if chars.peek().is_some_and(|c| matches!(c, '#' | ';')) {
            while chars.next_if(|c| *c != '\n').is_some() {}
            continue;
        }
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| !matches!(c, '=' | '\n')) {
            name.push(c);
        }
        if chars.next_if_eq(&'=').is_none() {
            continue;
        }
        while chars.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
        let value = environment_value(&mut chars);
        let name = name.trim();
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !name.is_empty() && name.chars().all(legal) && !name.starts_with(|c: char| c.is_ascii_digit()) {
            variables.retain(|(known, _)| known != name);
            variables.push((name.to_owned(), value));
        }
    }
    variables
}

fn environment_value(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    let mut value = String::new();
    // Trailing white space outside quotes does not count; quotes count where a value, or a piece of it, begins.
    let (mut kept, mut begins) = (0, true);
    let mut quote: Option<char> = None;
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\n', None) => break,
            (c, Some(open)) if c == open => {
                quote = None;
                begins = true;
                kept = value.len();
            }
            ('\\', Some('\'')) => value.push('\\'),
            ('\\', open) => {
                match (chars.next(), open) {
                    (None | Some('\n'), _) => {}
                    (Some(c), Some(_)) if !matches!(c, '"' | '\\' | '`' | '$') => value.extend(['\\', c]),
                    (Some(c), _) => value.push(c),
                }
                begins = false;
                kept = value.len();
            }
            (c @ ('"' | '\''), None) if begins => quote = Some(c),
            (c, None) if begins && c.is_ascii_whitespace() => {}
            (c, _) => {
                begins = false;
                value.push(c);
                if quote.is_some() || !c.is_ascii_whitespace() {
                    kept = value.len();
                }
            }
        }
    }
    value.truncate(kept);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_unquoted_and_unescaped() {
        let check = |value: &str, expected: &[&str]| assert_eq!(texts(value).unwrap(), expected, "{value}");
        check("a  b\tc", &["a", "b", "c"]);
        check("-g 'daemon on; master_process on;'", &["-g", "daemon on; master_process on;"]);
        check(r#""a b"c 'd "e"' "f 'g'""#, &["a bc", "d \"e\"", "f 'g'"]);
        check(r"a\x20b \n \s \101 \\ \u00e4", &["a b", "\n", " ", "A", "\\", "ä"]);
        check(r"\q", &["\\q"]);
        check("''", &[""]);
        for wrong in ["'a", "\"a", "a\\", r"\x2", r"\xff", r"\000"] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_a_plain_semicolon_separates() {
        let plain = |value: &str| split(value).unwrap().iter().map(|word| word.plain).collect::<Vec<_>>();
        assert_eq!(plain(r"; ';' \;"), [true, false, false]);
    }

    #[test]
    fn words_have_a_limit() {
        assert_eq!(split(&"a ".repeat(WORDS_MAX)).unwrap().len(), WORDS_MAX);
        assert!(split(&"a ".repeat(WORDS_MAX + 1)).is_err());
    }

    #[test]
    fn environment_files_are_read_as_systemd_reads_them() {
        let text = "# c\n; d\nA=1\n B = x y  \nC=\"a b\"  \nD='it \\n'\nE=one\\\n two\nF=\"q\\\"r\\s\"\nno line\n1X=2\nA=3\nG=\nH=-a 'b c'\nI='a' \"b\"\n";
        let of = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert_eq!(
            environment_file(text),
            [
                of("B", "x y"),
                of("C", "a b"),
                of("D", "it \\n"),
                of("E", "one two"),
                of("F", "q\"r\\s"),
                of("A", "3"),
                of("G", ""),
                of("H", "-a 'b c'"),
                of("I", "ab")
            ]
        );
    }
}
