use std::borrow::Cow;

/// Text that others wrote, as it can stand in a message: control characters become escapes, so that it stays on its line
/// and does nothing to a terminal.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_nothing_else_become_escapes() {
        assert_eq!(visible("key `é\"\\`"), "key `é\"\\`");
        assert_eq!(visible("a\nb\t\u{1b}[2J\u{7f}\u{9b}"), "a\\nb\\t\\u{1b}[2J\\u{7f}\\u{9b}");
    }
}
