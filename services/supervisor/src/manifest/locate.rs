//! From a byte offset to line, column and key, and from a key to its place.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Line and column of a byte offset, both counted from 1; the column counts characters.
pub(super) fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
    (line, column)
}

/// The key (`dependencies[1].name`) that stands at an offset, as deep as the text tells.
pub(super) fn key_at(text: &str, offset: usize) -> String {
    let (table, _) = DeTable::parse_recoverable(text);
    let mut path = String::new();
    descend_table(table.get_ref(), offset, &mut path);
    path
}

/// Where the value of a key stands; a key that is not there is looked for in the table around it.
pub(super) fn place_of(text: &str, key: &str) -> Option<usize> {
    let (table, _) = DeTable::parse_recoverable(text);
    let mut place = None;
    let mut here = Node::Table(table.get_ref());
    for step in key.split(['.', '[']).map(|step| step.trim_end_matches(']')) {
        let next = match here {
            Node::Table(table) => {
                table.iter().find(|(name, _)| name.get_ref().as_ref() == step).map(|(_, v)| v)
            }
            Node::Array(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
        };
        let Some(value) = next else { break };
        place = Some(value.span().start);
        match value.get_ref() {
            DeValue::Table(table) => here = Node::Table(table),
            DeValue::Array(items) => here = Node::Array(items),
            _ => break,
        }
    }
    place
}

enum Node<'a, 'i> {
    Table(&'a DeTable<'i>),
    Array(&'a [Spanned<DeValue<'i>>]),
}

fn descend_table(table: &DeTable<'_>, offset: usize, path: &mut String) {
    // A table of a header spans its header only, so what is inside is searched whether it is covered or not.
    for (name, value) in table {
        let length = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name.get_ref());
        if covers(&name.span(), offset) || descend(value, offset, path) {
            return;
        }
        path.truncate(length);
    }
}

fn descend(value: &Spanned<DeValue<'_>>, offset: usize, path: &mut String) -> bool {
    let length = path.len();
    match value.get_ref() {
        DeValue::Table(table) => descend_table(table, offset, path),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                if descend(item, offset, path) {
                    return true;
                }
                path.truncate(length);
            }
        }
        _ => {}
    }
    path.len() > length || covers(&value.span(), offset)
}

fn covers(span: &Range<usize>, offset: usize) -> bool {
    span.start <= offset && offset < span.end.max(span.start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "a = 1\n[b]\nc = { d = \"é\", e = [1, 22] }\n\n[[f]]\ng = 1\n[[f]]\ng = 2\nh.i = 3\n";

    #[track_caller]
    fn check(needle: &str, key: &str, line: usize, column: usize) {
        let offset = TEXT.find(needle).unwrap();
        assert_eq!(key_at(TEXT, offset), key);
        assert_eq!(line_column(TEXT, offset), (line, column));
    }

    #[test]
    fn an_offset_becomes_line_column_and_key() {
        check("1\n[b]", "a", 1, 5);
        check("22", "b.c.e[1]", 3, 24);
        check("e = [", "b.c.e", 3, 16);
        check("2\nh", "f[1].g", 8, 5);
        check("i = 3", "f[1].h.i", 9, 3);
    }

    #[test]
    fn a_key_has_a_place_or_that_of_the_table_around_it() {
        let line = |key| place_of(TEXT, key).map(|offset| line_column(TEXT, offset).0);
        assert_eq!(line("f[1].g"), Some(8));
        assert_eq!(line("f[1].missing"), Some(7));
        assert_eq!(line("b.c.e[1]"), Some(3));
        assert_eq!(line("missing"), None);
    }
}
