use std::{collections::BTreeMap, fmt};

use base::{Hash, visible};
use thiserror::Error;

use super::{
    ServiceManifest, check,
    limits::{MANIFEST_BYTES_MAX, NAME_BYTES_MAX, SERVICES_MAX},
    locate,
};
use crate::core::catalogue;

/// A manifest with where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedManifest {
    pub file: String,
    /// As it stood in the file; services get it with `Init`.
    pub text: String,
    /// Of the text.
    pub hash: Hash,
    pub manifest: ServiceManifest,
}

impl LoadedManifest {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.manifest.service.name
    }
}

/// One thing that is wrong, and where: `file:line:column: key …: what is wrong, what is allowed`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct ManifestError {
    pub file: String,
    /// From 1; 0 if the fault is the file as a whole.
    pub line: usize,
    pub column: usize,
    /// Empty if the text is no TOML at all.
    pub key: String,
    pub what: String,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": key `{}`", visible(&self.key))?;
        }
        write!(f, ": {}", visible(&self.what))
    }
}

/// What could be loaded and what could not: one bad file of a user does not stop the node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loading {
    pub manifests: Vec<LoadedManifest>,
    pub errors: Vec<ManifestError>,
}

/// Loads (file name, text) pairs. Of two manifests with one name both are refused, since nobody can say which was meant;
/// only a name of the catalogue stays with the first, so that no file of a user stops the node from booting.
#[must_use]
pub fn load<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Loading {
    let mut loading = Loading::default();
    let mut by_name: BTreeMap<String, Vec<LoadedManifest>> = BTreeMap::new();
    for (count, (file, text)) in files.into_iter().enumerate() {
        if count >= SERVICES_MAX {
            let what = format!("this is one manifest too many: a node has at most {SERVICES_MAX} services");
            loading.errors.push(whole(file, what));
            break;
        }
        match parse(file, text) {
            Ok(manifest) => by_name.entry(manifest.name().to_owned()).or_default().push(manifest),
            Err(errors) => loading.errors.extend(errors),
        }
    }
    for (name, mut same) in by_name {
        match same.pop() {
            Some(only) if same.is_empty() => loading.manifests.push(only),
            Some(last) => {
                same.push(last);
                let mut errors = duplicates(&name, &same);
                if catalogue::find(&name).is_some() {
                    errors.remove(0);
                    loading.manifests.push(same.swap_remove(0));
                }
                loading.errors.extend(errors);
            }
            None => {}
        }
    }
    loading
}

fn duplicates(name: &str, same: &[LoadedManifest]) -> Vec<ManifestError> {
    let others = |own: &LoadedManifest| -> Vec<&str> {
        same.iter().map(|other| other.file.as_str()).filter(|file| *file != own.file).collect()
    };
    same.iter()
        .map(|own| {
            let what = format!(
                "{name:?} is also the name in {}; a name belongs to one service",
                others(own).join(", ")
            );
            at_key(&own.file, &own.text, "service.name", what)
        })
        .collect()
}

/// Reads one manifest, or names everything that is wrong with it.
pub fn parse(file: &str, text: &str) -> Result<LoadedManifest, Vec<ManifestError>> {
    if text.len() > MANIFEST_BYTES_MAX {
        let what = format!("a manifest has at most {MANIFEST_BYTES_MAX} bytes, this one has {}", text.len());
        return Err(vec![whole(file, what)]);
    }
    let manifest: ServiceManifest =
        toml::from_str(text).map_err(|error| vec![of_toml(file, text, &error)])?;
    let faults = check::check(&manifest);
    if !faults.is_empty() {
        return Err(faults.into_iter().map(|fault| at_key(file, text, &fault.key, fault.what)).collect());
    }
    Ok(LoadedManifest {
        file: file.to_owned(),
        text: text.to_owned(),
        hash: Hash::of(text.as_bytes()),
        manifest,
    })
}

/// Everything that is wrong with the places of a way out, as who reads them says it.
pub fn check_places(
    loaded: &LoadedManifest,
    read: impl Fn(&str) -> Result<(), String>,
) -> Result<(), Vec<ManifestError>> {
    let places = loaded.manifest.egress.iter().flat_map(|egress| &egress.allow).enumerate();
    let wrong: Vec<ManifestError> = places
        .filter_map(|(index, place)| {
            let what = read(place).err()?;
            Some(at_key(&loaded.file, &loaded.text, &format!("egress.allow[{index}]"), what))
        })
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn whole(file: &str, what: String) -> ManifestError {
    ManifestError { file: file.to_owned(), line: 0, column: 0, key: String::new(), what }
}

fn at_key(file: &str, text: &str, key: &str, what: String) -> ManifestError {
    let (line, column) = locate::line_column(text, locate::place_of(text, key).unwrap_or(0));
    ManifestError { file: file.to_owned(), line, column, key: key.to_owned(), what }
}

/// What stands at an offset, where the text is too broken to have keys.
fn word_at(text: &str, offset: usize) -> String {
    let rest = text.get(offset..).unwrap_or_default();
    let is_key = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    rest.chars().take_while(is_key).take(NAME_BYTES_MAX).collect()
}

fn of_toml(file: &str, text: &str, error: &toml::de::Error) -> ManifestError {
    let offset = error.span().map_or(0, |span| span.start);
    let (line, column) = locate::line_column(text, offset);
    let around = locate::key_at(text, offset);
    // A missing key has no place of its own: the table that lacks it is named, and the key.
    let key = match error.message().strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        Some(missing) if around.is_empty() || error.span().is_none() || error.span() == Some(0..0) => {
            missing.to_owned()
        }
        Some(missing) => format!("{around}.{missing}"),
        None if around.is_empty() => word_at(text, offset),
        None => around,
    };
    ManifestError { file: file.to_owned(), line, column, key, what: error.message().replace('\n', "; ") }
}
