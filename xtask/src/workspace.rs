//! What `cargo metadata` and the folders say about the workspace.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::proc;

const METADATA_LIMIT: std::time::Duration = std::time::Duration::from_secs(120);

#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) target_directory: PathBuf,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Set for members of the workspace.
    pub(crate) path: Option<PathBuf>,
}

pub(crate) fn metadata() -> Result<Metadata> {
    let mut command = proc::cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let text = proc::stdout_of(command.current_dir(root()?), METADATA_LIMIT)?;
    serde_json::from_str(&text).context("reading the answer of cargo metadata")
}

pub(crate) fn root() -> Result<PathBuf> {
    // Asked at run time: two checkouts may share a target directory, and with it this executable.
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.parent().map(Path::to_path_buf).context("this crate does not lie below the workspace")
}

/// Folders of the workspace that hold nothing written by hand.
const NOT_SOURCES: [&str; 4] = ["target", "generated", ".git", "mutants.out"];

/// Every file below `folder` whose name ends in `suffix`, sorted; generated ones left out.
pub(crate) fn files(folder: &Path, suffix: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
            let entry = entry.with_context(|| format!("listing {}", folder.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().with_context(|| format!("looking at {}", entry.path().display()))?;
            if kind.is_dir() && !NOT_SOURCES.contains(&name.as_str()) && !name.starts_with("target-") {
                folders.push(entry.path());
            } else if kind.is_file() && name.ends_with(suffix) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

pub(crate) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// `path` as written in messages: relative to the workspace.
pub(crate) fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}
