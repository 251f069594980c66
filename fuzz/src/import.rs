//! Any text as a unit, a Quadlet container or a compose file.
//!
//! Strategy: the first byte chooses what the rest is. A dictionary has keys and words of them. The host knows nothing.
//! Invariants: a refusal is one line; each setting has its fate, and none was passed over; a manifest that comes out is
//! one that the supervisor takes, unless it says of itself that it lacks its image; twice the same comes out.

use import::{Import, Named, Unknown, compose, units};
use supervisor::manifest::parse;

/// As a whole: a unit that holds these words can be told so.
const PASSED_OVER: &str = "the import passed it over, which is a fault of the import";
const RUN: &str = "[Service]\nExecStart=/bin/x\n";

pub fn run(input: &[u8]) -> bool {
    let Some((choice, text)) = input.split_first() else { return false };
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let import = || match choice % 5 {
        0 => all(&[("a.service", text)]),
        1 => all(&[("a.service", RUN), ("a.socket", text)]),
        2 => all(&[("a.service", RUN), ("a.timer", text)]),
        3 => all(&[("a.container", text)]),
        _ => compose("a.yml", text),
    };
    match import() {
        Ok(made) => {
            assert_eq!(import().as_ref(), Ok(&made));
            accepted(&made);
            !made.manifests.is_empty()
        }
        Err(error) => {
            super::check::one_line(&base::visible(&error));
            false
        }
    }
}

fn all(texts: &[(&str, &str)]) -> Result<Import, String> {
    let named = texts.iter().map(|(name, text)| Named {
        name: (*name).to_owned(),
        files: vec![((*name).to_owned(), (*text).to_owned())],
    });
    units(&named.collect::<Vec<_>>(), &Unknown)
}

fn accepted(import: &Import) {
    for entry in &import.report.entries {
        assert!(!entry.how.is_empty() && entry.how != PASSED_OVER, "{entry:?}");
    }
    for manifest in &import.manifests {
        let lacks_image = manifest.head.iter().any(|line| line.starts_with("Not complete"));
        let mut read = manifest.clone();
        // Calendar times are handed on as they stand: the supervisor says what is wrong with one.
        if let Some(timer) = &mut read.timer {
            timer.calendar = vec!["daily".to_owned()];
        }
        let text = read.to_toml();
        let loaded = parse("a.toml", &text);
        assert!(loaded.is_ok() || lacks_image, "{:?}\n{text}", loaded.err());
    }
}
