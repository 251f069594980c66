//! Habits that no compiler checks: layering, pure cores, manifests, reasons for dependencies. Sizes are printed, not judged.

mod layering;
mod manifests;
mod sizes;
mod sources;

use anyhow::{Result, bail};

use crate::workspace;

pub(crate) fn run() -> Result<()> {
    let root = workspace::root()?;
    let metadata = workspace::metadata()?;
    let mut problems = layering::check(&root, &metadata);
    problems.extend(layering::reasons(&workspace::read(&root.join("Cargo.toml"))?));
    let mut sizes = sizes::Sizes::default();
    let mut texts = Vec::new();
    for path in workspace::files(&root, ".rs")? {
        let name = workspace::relative(&root, &path);
        let text = workspace::read(&path)?;
        problems.extend(sources::check(&name, &text));
        sizes.add(&name, &text);
        texts.push((name, text));
    }
    let clients = manifests::clients(&workspace::read(&root.join("proto/contracts.lock"))?);
    for path in workspace::files(&root.join("services"), "manifest.toml")? {
        let name = workspace::relative(&root, &path);
        problems.extend(manifests::check(&name, &workspace::read(&path)?, &texts, &clients));
    }
    sizes.print();
    if problems.is_empty() {
        println!("tidy: {} files, {} packages, nothing to complain of", texts.len(), metadata.packages.len());
        return Ok(());
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    bail!("tidy: {} problems", problems.len())
}
