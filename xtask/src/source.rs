//! Rust source without a parser: comments and literals blanked out, test modules cut out, functions measured.
//!
//! Approximate on purpose (the checks that use it are about habits), but a string or a comment is never taken for code.

/// The same text, byte for byte and line for line, with the insides of comments and literals replaced by blanks.
pub(crate) fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out = String::with_capacity(source.len());
    let mut i = 0;
    while i < chars.len() {
        let end = match (at(i), at(i + 1)) {
            ('/', '/') => end_of_line(&chars, i),
            ('/', '*') => end_of_block(&chars, i),
            ('"', _) => end_of_string(&chars, i),
            ('\'', _) => end_of_char(&chars, i),
            ('r', '"' | '#')
                if !is_word(i.checked_sub(1).map_or('\0', at)) || at(i.wrapping_sub(1)) == 'b' =>
            {
                end_of_raw_string(&chars, i)
            }
            _ => i + 1,
        };
        if end == i + 1 {
            out.push(at(i));
        } else {
            for c in chars.get(i..end).unwrap_or_default() {
                let (blank, bytes) = if *c == '\n' { ('\n', 1) } else { (' ', c.len_utf8()) };
                out.extend(std::iter::repeat_n(blank, bytes));
            }
        }
        i = end;
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn end_of_line(chars: &[char], start: usize) -> usize {
    chars.iter().skip(start).position(|c| *c == '\n').map_or(chars.len(), |n| start + n)
}

fn end_of_block(chars: &[char], start: usize) -> usize {
    let (mut depth, mut i) = (0_usize, start);
    while i < chars.len() {
        match (chars.get(i), chars.get(i + 1)) {
            (Some('/'), Some('*')) => (depth, i) = (depth + 1, i + 2),
            (Some('*'), Some('/')) => (depth, i) = (depth.saturating_sub(1), i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while let Some(c) = chars.get(i) {
        match c {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// A character literal, or one past the quote where it is a lifetime.
fn end_of_char(chars: &[char], start: usize) -> usize {
    match (chars.get(start + 1), chars.get(start + 2)) {
        (Some('\\'), _) => {
            let body = chars.iter().skip(start + 3);
            body.clone().position(|c| *c == '\'').map_or(chars.len(), |n| start + 3 + n + 1)
        }
        (Some(_), Some('\'')) => start + 3,
        _ => start + 1,
    }
}

fn end_of_raw_string(chars: &[char], start: usize) -> usize {
    let hashes = chars.iter().skip(start + 1).take_while(|c| **c == '#').count();
    if chars.get(start + 1 + hashes) != Some(&'"') {
        return start + 1; // a raw identifier
    }
    let mut i = start + 2 + hashes;
    while i < chars.len() {
        let closes = chars.get(i) == Some(&'"')
            && chars.iter().skip(i + 1).take(hashes).filter(|c| **c == '#').count() == hashes;
        if closes {
            return i + 1 + hashes;
        }
        i += 1;
    }
    chars.len()
}

/// Blanks every item that stands under `#[cfg(test)]`. Takes and gives text from `code_only`.
pub(crate) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find(MARK) {
        let (before, item) = rest.split_at(start);
        out.push_str(before);
        let end = end_of_item(item.get(MARK.len()..).unwrap_or_default()) + MARK.len();
        let (item, after) = item.split_at_checked(end).unwrap_or((item, ""));
        out.extend(item.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Bytes up to the end of the item: its closing brace, or its semicolon if that comes first.
fn end_of_item(code: &str) -> usize {
    let mut depth = 0_usize;
    for (i, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return i + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return i + 1,
            _ => {}
        }
    }
    code.len()
}

/// Whether `word` stands in `code` as a word of its own (`libc` is not in `mylibc_x`).
pub(crate) fn has_word(code: &str, word: &str) -> bool {
    lines_with_word(code, word).next().is_some()
}

/// Numbers, from 1, of the lines in which `word` stands.
pub(crate) fn lines_with_word<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.lines().enumerate().filter(move |(_, line)| line_has_word(line, word)).map(|(n, _)| n + 1)
}

fn line_has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(i, _)| {
        let before = line.get(..i).and_then(|s| s.chars().next_back());
        let after = line.get(i + word.len()..).and_then(|s| s.chars().next());
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// From 1.
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

/// Every function with a body. Takes text from `code_only`.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("fn ") {
        if code.get(..start).and_then(|s| s.chars().next_back()).is_some_and(is_word) {
            continue;
        }
        let rest = code.get(start..).unwrap_or_default();
        let name: String = rest.chars().skip(3).take_while(|c| is_word(*c)).collect();
        let end = end_of_item(rest);
        let body = rest.get(..end).unwrap_or_default();
        if name.is_empty() || !body.ends_with('}') {
            continue; // a function type, or a declaration without a body
        }
        let line = 1 + code.get(..start).unwrap_or_default().matches('\n').count();
        found.push(Function { name, line, lines: 1 + body.matches('\n').count() });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &str) {
        assert_eq!(code_only(source), expected);
    }

    #[test]
    fn comments_and_literals_are_blank_and_code_stays() {
        check("a // b\nc", "a     \nc");
        check("a /* b /* c */ d\n*/ e", "a               \n   e");
        check(r#"x("a\"b", c)"#, "x(      , c)");
        check("y('\"', 'a', '\\'', b)", "y(   ,    ,     , b)");
        check("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)");
        check("r#\"a\"b\"# c", "         c");
        check("br\"x\" r#type for", "b     r#type for");
        check("var\"x\"", "var   ");
        check("\"§\" x", "     x");
    }

    #[test]
    fn test_items_are_cut_out() {
        let code =
            "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { c } }\nfn d() {}\n#[cfg(test)]\nmod e;\nf";
        let cut = without_tests(code);
        assert_eq!(cut.lines().count(), code.lines().count());
        assert!(!has_word(&cut, "b") && !has_word(&cut, "e") && has_word(&cut, "d") && has_word(&cut, "f"));
    }

    #[test]
    fn words_have_borders() {
        assert!(has_word("use libc;", "libc") && !has_word("mylibc libc_x", "libc"));
        assert_eq!(lines_with_word("a\nb a\nab", "a").collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn functions_are_measured() {
        let code = "fn a();\nfn b(x: fn(u8)) -> u8 {\n  { 1 }\n}\ntype T = fn (u8);";
        assert_eq!(functions(code), [Function { name: "b".to_owned(), line: 2, lines: 3 }]);
    }
}
