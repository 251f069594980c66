//! Any text as a key path, and any bytes as an encoded one.
//!
//! Strategy: the input is text in up to two lines, each a path; the whole of it is also taken as CBOR.
//! Invariants: a refusal is one line; what is accepted keeps the limits, prints as a path that parses as the same one,
//! survives CBOR and JSON, is its parent's child and its children's parent; more slashes add nothing; of two paths one is
//! a child of the other exactly if its text continues the other's with a slash.

use base::{
    KeyPath, cbor,
    limits::{KEY_PATH_SEGMENT_BYTES_MAX, KEY_PATH_SEGMENTS_MAX},
};

pub fn run(input: &[u8]) -> bool {
    let encoded = super::check::one_encoding::<KeyPath>(input);
    encoded.iter().for_each(holds);
    let Ok(text) = std::str::from_utf8(input) else { return encoded.is_some() };
    let paths: Vec<KeyPath> = text.splitn(2, '\n').filter_map(parsed).collect();
    if let [one, other] = paths.as_slice() {
        related(one, other);
        related(other, one);
    }
    encoded.is_some() || !paths.is_empty()
}

fn parsed(text: &str) -> Option<KeyPath> {
    match KeyPath::parse(text) {
        Ok(path) => {
            assert_eq!(KeyPath::parse(&(text.replace('/', "//") + "/")).as_ref(), Ok(&path));
            holds(&path);
            Some(path)
        }
        Err(error) => {
            super::check::one_line(&error);
            None
        }
    }
}

fn holds(path: &KeyPath) {
    assert!((1..=KEY_PATH_SEGMENTS_MAX).contains(&path.segments().len()));
    for segment in path.segments() {
        assert!((1..=KEY_PATH_SEGMENT_BYTES_MAX).contains(&segment.as_bytes().len()));
        assert!(!matches!(segment.as_str(), "." | "..") && !segment.as_str().contains(['/', '\0']));
    }
    let text = path.to_string();
    assert!(text.starts_with('/') && !text.contains("//") && !text.ends_with('/'));
    assert_eq!(KeyPath::parse(&text).as_ref(), Ok(path));
    assert_eq!(cbor::decode(&cbor::encode(path)).as_ref(), Ok(path));
    let json = serde_json::to_string(path).unwrap_or_default();
    assert_eq!(serde_json::from_str::<KeyPath>(&json).ok().as_ref(), Some(path));
    assert!(!path.is_child_of(path));
    match (path.parent(), path.segments()) {
        (None, [_]) => {}
        (Some(parent), [.., last]) => {
            assert!(path.is_child_of(&parent));
            assert_eq!(parent.child(last.as_str()).as_ref(), Ok(path));
        }
        _ => assert!(path.segments().is_empty(), "a path of several segments has a parent"),
    }
    match path.child("x") {
        Ok(child) => assert_eq!(child.parent().as_ref(), Some(path)),
        Err(_) => assert_eq!(path.segments().len(), KEY_PATH_SEGMENTS_MAX),
    }
}

fn related(child: &KeyPath, parent: &KeyPath) {
    let below = child.to_string().starts_with(&format!("{parent}/"));
    assert_eq!(child.is_child_of(parent), below, "{child} under {parent}");
}
