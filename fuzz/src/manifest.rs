//! Any text as a manifest.
//!
//! Strategy: the text goes through the loader whole: TOML, schema, checks. A dictionary has the keys.
//! Invariants: a refusal names at least one fault, each on one line and at a place inside the text; what is accepted is
//! within the limits that the supervisor builds on, prints, and reads back as the same manifest; of two files with one
//! name at most one is loaded, and only where the name is the catalogue's.

use supervisor::{
    core::{
        catalogue,
        graph::{Graph, GraphError},
    },
    manifest::{LoadedManifest, ManifestError, limits::MANIFEST_BYTES_MAX, load, parse},
};

const FILE: &str = "a.toml";

pub fn run(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    match parse(FILE, text) {
        Ok(loaded) => {
            accepted(text, &loaded);
            true
        }
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without a word");
            errors.iter().for_each(|error| refused(text, error));
            false
        }
    }
}

fn refused(text: &str, error: &ManifestError) {
    super::check::one_line(error);
    assert_eq!(error.file, FILE);
    // The file as a whole has no line.
    if text.len() <= MANIFEST_BYTES_MAX {
        super::check::place(text, error.line, error.column);
    }
}

fn accepted(text: &str, loaded: &LoadedManifest) {
    let manifest = &loaded.manifest;
    assert!(manifest.key_path().is_some());
    match Graph::new([manifest]) {
        Ok(graph) => assert_eq!(graph.start_order().as_ref(), [manifest.service.name.as_str()]),
        Err(error) => {
            super::check::one_line(&error);
            assert!(matches!(error, GraphError::Later { .. }), "a service alone is no circle: {error}");
        }
    }
    let printed = toml::to_string(manifest).unwrap_or_default();
    // Defaults are written out, so the printed text may be above the limit of a file.
    if printed.len() <= MANIFEST_BYTES_MAX {
        let again = parse(FILE, &printed);
        assert_eq!(again.as_ref().map(|again| &again.manifest), Ok(manifest), "printed as\n{printed}");
    }
    let both = load([(FILE, text), ("b.toml", text)]);
    let kept = usize::from(catalogue::find(loaded.name()).is_some());
    assert_eq!((both.manifests.len(), both.errors.len()), (kept, 2 - kept));
    both.errors.iter().for_each(super::check::one_line);
}
