//! Cedar's tokens, one at a time.

use super::Fault;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Word(&'a str),
    Number(&'a str),
    /// What stands between the quotes, escapes included.
    Text(&'a str),
    /// `?principal` and its like.
    Slot(&'a str),
    Sign(&'static str),
    End,
}

/// The longer ones stand before those that they begin with.
const SIGNS: [&str; 27] = [
    "::", "==", "!=", "<=", ">=", "||", "&&", "@", ".", ",", ";", ":", "(", ")", "{", "}", "[", "]", "<",
    ">", "+", "-", "*", "/", "%", "!", "=",
];

pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    /// Blanks, and comments up to the end of their line.
    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            self.at += blank;
            let comment = match self.rest() {
                rest if rest.starts_with("//") => rest.find(['\n', '\r']).unwrap_or(rest.len()),
                _ => 0,
            };
            self.at += comment;
            if blank + comment == 0 {
                return;
            }
        }
    }

    /// The next token, and where it begins.
    pub(super) fn next(&mut self) -> Result<(usize, Token<'a>), Fault> {
        self.skip();
        let (start, rest) = (self.at, self.rest());
        let Some(first) = rest.chars().next() else { return Ok((start, Token::End)) };
        let token = match first {
            'a'..='z' | 'A'..='Z' | '_' => Token::Word(self.take(0, is_of_word)),
            '0'..='9' => Token::Number(self.take(0, |c| c.is_ascii_digit())),
            '?' if rest
                .get(1..)
                .is_some_and(|rest| rest.starts_with(|c| is_of_word(c) && !char::is_numeric(c))) =>
            {
                Token::Slot(self.take(1, is_of_word))
            }
            '"' => Token::Text(self.quoted(rest)?),
            _ => match SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
                Some(sign) => {
                    self.at += sign.len();
                    Token::Sign(sign)
                }
                None => return Err(Fault::new(start, format!("unexpected character {first:?}"))),
            },
        };
        Ok((start, token))
    }

    /// `skip` bytes, and what follows as long as it is so.
    fn take(&mut self, skip: usize, is: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let behind = rest.get(skip..).unwrap_or("");
        let length = skip + behind.find(|c| !is(c)).unwrap_or(behind.len());
        self.at += length;
        rest.get(..length).unwrap_or("")
    }

    fn quoted(&mut self, rest: &'a str) -> Result<&'a str, Fault> {
        let open = self.at;
        let mut chars = rest.char_indices().skip(1);
        while let Some((offset, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += offset + 1;
                    return Ok(rest.get(1..offset).unwrap_or(""));
                }
                '\\' if chars.next().is_none_or(|(_, c)| c == '\n') => break,
                _ => {}
            }
        }
        Err(Fault::new(open, "this string does not end"))
    }
}

const fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Vec<Token<'_>>, Fault> {
        let mut lexer = Lexer::new(text);
        let mut all = Vec::new();
        loop {
            match lexer.next()?.1 {
                Token::End => return Ok(all),
                token => all.push(token),
            }
        }
    }

    #[test]
    fn text_falls_into_tokens() {
        use Token::{Number, Sign, Slot, Text, Word};
        let all = tokens("a_1::\"x\\\"y\"// \"\n<=<12 ?principal").unwrap();
        assert_eq!(
            all,
            [
                Word("a_1"),
                Sign("::"),
                Text("x\\\"y"),
                Sign("<="),
                Sign("<"),
                Number("12"),
                Slot("?principal")
            ]
        );
        for (text, at) in [("a \"b", 2), ("a \"b\\", 2), ("\"\\\n\"", 0), ("a $", 2), ("?1", 0), ("é", 0)] {
            assert_eq!(tokens(text).unwrap_err().at, at, "{text:?}");
        }
    }
}
