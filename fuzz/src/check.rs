//! What several targets ask of the code that they drive.

use base::cbor;
use minicbor::{Decode, Encode};

/// An error is read in a terminal or in a log of lines: it says something, on one line, and writes no escape sequences.
#[track_caller]
pub(crate) fn one_line(error: &impl std::fmt::Display) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains(char::is_control), "not one line: {text:?}");
}

/// Line and column, both from 1, stand in the text or right behind it.
#[track_caller]
pub(crate) fn place(text: &str, line: usize, column: usize) {
    let found = line.checked_sub(1).and_then(|before| text.split('\n').nth(before));
    let columns = found.map_or(0, |line| line.chars().count() + 1);
    assert!((1..=columns).contains(&column), "no place in the text: {line}:{column}");
}

/// What decodes has these bytes and no others.
#[track_caller]
pub(crate) fn one_encoding<T: for<'b> Decode<'b, ()> + Encode<()>>(bytes: &[u8]) -> Option<T> {
    let value = cbor::decode(bytes).ok()?;
    assert!(cbor::encode(&value) == bytes, "decoded from another encoding");
    Some(value)
}
