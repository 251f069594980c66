//! Globs without backtracking: all positions of the pattern that are still possible advance together.
//!
//! `*` is any run of characters inside a component, `**` any run, `?` one character inside a component. There is no
//! escape: what holds these characters literally is matched with `Exact` or `PathPrefix`.

use thiserror::Error;

use super::limits::PATTERN_BYTES_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GlobError {
    #[error("the pattern is empty")]
    Empty,
    #[error("the pattern has {0} bytes, at most {PATTERN_BYTES_MAX} are allowed")]
    TooLong(usize),
    #[error("the pattern holds `***`")]
    ThreeStars,
    #[error("the pattern holds a NUL")]
    Nul,
}

pub fn check(pattern: &str) -> Result<(), GlobError> {
    if pattern.is_empty() {
        Err(GlobError::Empty)
    } else if pattern.len() > PATTERN_BYTES_MAX {
        Err(GlobError::TooLong(pattern.len()))
    } else if pattern.contains("***") {
        Err(GlobError::ThreeStars)
    } else if pattern.contains('\0') {
        Err(GlobError::Nul)
    } else {
        Ok(())
    }
}

/// The part before the first wildcard; the whole pattern if it has none.
#[must_use]
pub fn literal_prefix(pattern: &str) -> &str {
    pattern.split(['*', '?']).next().unwrap_or("")
}

/// One bit for each byte of the pattern, and one for its end.
const WORDS: usize = PATTERN_BYTES_MAX / 64 + 1;

#[derive(Clone, Copy, Default)]
struct Positions([u64; WORDS]);

impl Positions {
    /// Adds a position, and those behind stars that stand there, for a star can be nothing.
    fn add(&mut self, pattern: &str, mut at: usize) {
        loop {
            if let Some(word) = self.0.get_mut(at / 64) {
                *word |= 1 << (at % 64);
            }
            match star(pattern, at) {
                0 => return,
                width => at += width,
            }
        }
    }

    fn contains(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    fn iter(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(word, mut bits)| {
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros() as usize;
                bits &= bits.wrapping_sub(1);
                (bit < 64).then_some(word * 64 + bit)
            })
        })
    }
}

/// Bytes of the star at this position: 0, 1 or 2.
fn star(pattern: &str, at: usize) -> usize {
    let rest = pattern.get(at..).unwrap_or("");
    if rest.starts_with("**") { 2 } else { usize::from(rest.starts_with('*')) }
}

/// True if the whole text matches.
pub fn matches(pattern: &str, text: &str, separator: char) -> Result<bool, GlobError> {
    check(pattern)?;
    let head = literal_prefix(pattern);
    let (Some(rest), Some(text)) = (pattern.get(head.len()..), text.strip_prefix(head)) else {
        return Ok(false);
    };
    let mut here = Positions::default();
    here.add(rest, 0);
    for c in text.chars() {
        let mut next = Positions::default();
        for at in here.iter() {
            match (star(rest, at), rest.get(at..).and_then(|r| r.chars().next())) {
                (2, _) => next.add(rest, at),
                (1, _) if c != separator => next.add(rest, at),
                (0, Some('?')) if c != separator => next.add(rest, at + 1),
                (0, Some(literal)) if literal != '?' && literal == c => {
                    next.add(rest, at + literal.len_utf8())
                }
                _ => {}
            }
        }
        if next.is_empty() {
            return Ok(false);
        }
        here = next;
    }
    Ok(here.contains(rest.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// covers: POL-45
    #[test]
    fn stars_stay_inside_a_component_and_two_stars_do_not() {
        for (pattern, text, expected) in [
            ("/a/*", "/a/b", true),
            ("/a/*", "/a/b/c", false),
            ("/a/**", "/a/b/c", true),
            ("/a/*/c", "/a/b/c", true),
            ("/a/**/c", "/a/b/b/c", true),
            ("/a/?", "/a/b", true),
            ("/a/?", "/a/é", true),
            ("/a/?", "/a//", false),
            ("/a/?", "/a/bb", false),
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("/a*", "/a", true),
            ("**", "", true),
            ("*.log", "x.log", true),
            ("*.log", "d/x.log", false),
            ("é*", "éa", true),
            ("a?c", "a?c", true),
        ] {
            assert_eq!(matches(pattern, text, '/'), Ok(expected), "{pattern} on {text}");
        }
        assert_eq!(matches("a.*", "a.b.c", '.'), Ok(false));
        assert_eq!(matches("a.*", "a.b", '.'), Ok(true));
    }

    #[test]
    fn malformed_patterns_are_errors_at_their_limits() {
        assert_eq!(matches("", "", '/'), Err(GlobError::Empty));
        assert_eq!(matches("a***", "a", '/'), Err(GlobError::ThreeStars));
        assert_eq!(matches("\0", "a", '/'), Err(GlobError::Nul));
        let longest = "x".repeat(PATTERN_BYTES_MAX);
        assert_eq!(matches(&longest, &longest, '/'), Ok(true));
        let wild = "?".repeat(PATTERN_BYTES_MAX);
        assert_eq!(matches(&wild, &longest, '/'), Ok(true));
        assert_eq!(matches(&format!("{longest}x"), "", '/'), Err(GlobError::TooLong(PATTERN_BYTES_MAX + 1)));
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_its_length_times_the_text() {
        let pattern = "*a".repeat(PATTERN_BYTES_MAX / 2 - 1) + "*b";
        assert_eq!(matches(&pattern, &"a".repeat(4096), '/'), Ok(false));
    }

    /// Plain recursion over the definition.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', '*', rest @ ..] => (0..=text.len()).any(|n| naive(rest, &text[n..])),
            ['*', rest @ ..] => {
                (0..=text.len()).take_while(|n| !text[..*n].contains(&'/')).any(|n| naive(rest, &text[n..]))
            }
            ['?', rest @ ..] => text.first().is_some_and(|c| *c != '/') && naive(rest, &text[1..]),
            [c, rest @ ..] => text.first() == Some(c) && naive(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab/é*?]{1,9}", text in "[ab/é]{0,9}") {
            prop_assume!(check(&pattern).is_ok());
            let chars = |s: &str| s.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &text, '/'), Ok(naive(&chars(&pattern), &chars(&text))));
        }
    }
}
