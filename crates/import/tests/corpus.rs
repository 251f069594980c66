//! The units that Debian ships, imported and compared with what was reviewed.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop the test")]

mod debian;

use std::{fmt::Write as _, fs};

use debian::{corpus, packages};
use import::{Fate, Import, keys};

/// From the folder of this package.
const CORPUS: &str = "corpus";

fn shown(import: &Import) -> String {
    let mut out = String::new();
    for manifest in &import.manifests {
        writeln!(out, "=== {}.toml\n{}", manifest.name, manifest.to_toml()).unwrap();
    }
    writeln!(out, "=== report").unwrap();
    for entry in &import.report.entries {
        let key = if entry.key.is_empty() { "the unit" } else { &entry.key };
        writeln!(out, "{} {key} {}: {}", entry.place, entry.fate, entry.how).unwrap();
    }
    out
}

#[test]
fn the_units_of_debian_become_what_was_reviewed() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut different = Vec::new();
    let all = packages();
    assert!(all.len() >= 17, "{} packages", all.len());
    for (package, import) in &all {
        let golden = corpus("golden").join(format!("{package}.txt"));
        let made = shown(import);
        if update {
            fs::write(&golden, &made).unwrap();
        } else if fs::read_to_string(&golden).ok().as_ref() != Some(&made) {
            different.push(package.clone());
        }
    }
    assert!(different.is_empty(), "differ from corpus/golden: {different:?}");
}

#[test]
fn every_setting_of_debian_has_a_fate_that_the_table_names() {
    for (package, import) in packages() {
        for entry in &import.report.entries {
            assert!(
                !entry.how.is_empty() && !entry.how.contains("fault of the import"),
                "{package}: {entry:?}"
            );
            let Some(row) = keys::PAGES
                .iter()
                .flat_map(|page| page.keys)
                .find(|row| row.names.contains(&keys::canonical(&entry.key)))
            else {
                assert!(
                    entry.key.is_empty() || entry.how.contains("no key of this name"),
                    "{package}: {entry:?}"
                );
                continue;
            };
            let allowed: &[Fate] = match row.treat {
                keys::Treat::Ignored => &[Fate::Ignored],
                keys::Treat::Refused => &[Fate::Refused, Fate::Ignored],
                keys::Treat::Always => &[Fate::Mapped, Fate::Approximated, Fate::Ignored],
                keys::Treat::Code(fates) => fates,
            };
            // What another line takes back, and what is a part of something else, is ignored whatever it is.
            assert!(allowed.contains(&entry.fate) || entry.fate == Fate::Ignored, "{package}: {entry:?}");
        }
    }
}

#[test]
fn every_manifest_is_toml() {
    for (package, import) in packages() {
        for manifest in import.manifests {
            let text = manifest.to_toml();
            assert!(text.parse::<toml::Table>().is_ok(), "{package}: {text}");
        }
    }
}
