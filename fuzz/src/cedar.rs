//! Any text as a file of Cedar policies.
//!
//! Strategy: the text goes through the import whole. A dictionary has Cedar's words and the mapping's.
//! Invariants: a refusal is one line, at a place inside the text, and so is each policy that is left out; what is imported
//! may be stored, is exported whole, and comes back equal, but for rules that are not needed.

use policy::{
    cedar::{FILE_BYTES_MAX, Import, export, import},
    core::validate,
};

const FILE: &str = "a.cedar";

pub fn run(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    match import(FILE, text) {
        Ok(found) => {
            accepted(text, &found);
            !found.rules.is_empty()
        }
        Err(error) => {
            super::check::one_line(&error);
            if text.len() <= FILE_BYTES_MAX {
                super::check::place(text, error.line, error.column);
            }
            false
        }
    }
}

fn accepted(text: &str, found: &Import) {
    for one in &found.left_out {
        assert!(!one.why.is_empty());
        super::check::place(text, one.line, one.column);
    }
    found.rules.iter().for_each(|rule| assert_eq!(validate(rule), Ok(())));
    // Repeated for each rule that denies, conditions can be more than a file holds.
    let Ok(export) = export(&found.rules) else { return };
    assert_eq!(export.left_out, []);
    let back = import(FILE, &export.text);
    assert!(back.is_ok(), "{back:?}\n{}", export.text);
    let back = back.unwrap_or_default();
    assert!(back.left_out.is_empty() && back.raised.is_empty(), "{back:?}\n{}", export.text);
    let by_id = |id: &base::RuleId| found.rules.iter().find(|rule| rule.id == *id);
    assert!(back.rules.iter().eq(export.kept.iter().filter_map(by_id)), "{back:?}\n{}", export.text);
}
