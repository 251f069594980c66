//! `docs/import.md` names every key that the import knows, and no other.

use std::{fs, path::Path};

use import::keys;

const HEAD: &str = "## Every key\n";

#[test]
fn the_page_has_the_table_that_the_import_follows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/import.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, after) = text.split_once(HEAD).unwrap();
    let said = after.split("\n### ").next().unwrap().trim_end();
    let made = format!("{before}{HEAD}{said}\n{}", keys::tables());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &made).unwrap();
    } else {
        assert_eq!(text, made, "docs/import.md differs from the table of keys");
    }
}
