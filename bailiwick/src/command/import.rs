//! `bailiwick import`: manifests out of what runs under another supervisor. Works on files alone.

mod find;
mod host;

use std::{
    fs::{DirBuilder, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use base::visible;
use import::{Entry, Fate};
use serde::Serialize;

use crate::{
    args::{Import, Output},
    exit::{Failure, NOT_MAPPED, USAGE},
    output,
};

#[derive(Serialize)]
struct Done {
    manifests: Vec<Made>,
    settings: Vec<Entry>,
    counts: Counts,
    /// Refused settings whose key was not accepted: why the command ends with 6.
    not_mapped: usize,
}

#[derive(Serialize)]
struct Made {
    name: String,
    /// Where it was written, if it was.
    file: Option<PathBuf>,
    manifest: String,
}

#[derive(Serialize)]
struct Counts {
    mapped: usize,
    approximated: usize,
    refused: usize,
    ignored: usize,
}

pub fn run(output: Output, args: &Import) -> Result<ExitCode> {
    let imported = import_all(&args.files)?;
    let out = args.out.as_deref().filter(|_| !args.dry_run);
    let mut manifests = Vec::new();
    for manifest in &imported.manifests {
        let file = out.map(|folder| folder.join(format!("{}.toml", manifest.name)));
        manifests.push(Made { name: manifest.name.clone(), file, manifest: manifest.to_toml() });
    }
    if let Some(folder) = out {
        write(folder, &manifests, args.force)?;
    }
    let report = &imported.report;
    let counts = Counts {
        mapped: report.count(Fate::Mapped),
        approximated: report.count(Fate::Approximated),
        refused: report.count(Fate::Refused),
        ignored: report.count(Fate::Ignored),
    };
    let not_mapped = report.refused(&args.accept).count();
    let settings = report.entries.clone();
    let done = Done { manifests, settings, counts, not_mapped };
    output::show(output, &done, || text(&done, args))?;
    Ok(if not_mapped > 0 { ExitCode::from(NOT_MAPPED) } else { ExitCode::SUCCESS })
}

/// Units together, since they speak of each other; compose files each on its own.
fn import_all(files: &[PathBuf]) -> Result<import::Import> {
    let unusable = |why: String| Failure::new(USAGE, why);
    let is_compose = |file: &&PathBuf| file.extension().is_some_and(|kind| kind == "yml" || kind == "yaml");
    let (compose, units): (Vec<_>, Vec<_>) = files.iter().partition(is_compose);
    let mut all = import::units(&find::all(&units)?, &host::Real).map_err(unusable)?;
    for file in compose {
        let (name, text) = find::text(file)?;
        let more = import::compose(&name, &text).map_err(unusable)?;
        all.manifests.extend(more.manifests);
        all.report.entries.extend(more.report.entries);
    }
    let mut names: Vec<&str> = all.manifests.iter().map(|manifest| manifest.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair.first() == pair.last()).and_then(<[&str]>::first) {
        let what = format!("two of the files make a service {twice}; import them into folders of their own");
        return Err(unusable(what).into());
    }
    Ok(all)
}

fn text(done: &Done, args: &Import) -> String {
    let mut out = String::new();
    for entry in &done.settings {
        let quiet = matches!(entry.fate, Fate::Mapped | Fate::Ignored);
        if quiet && !args.all {
            continue;
        }
        let fate = match entry.fate {
            Fate::Refused if args.accept.contains(&entry.key) => "refused, accepted".to_owned(),
            Fate::Refused => output::bad("refused"),
            other => other.to_string(),
        };
        let what = match entry.key.is_empty() {
            true => String::new(),
            false => format!(" {}={}", visible(&entry.key), visible(&entry.value)),
        };
        out.push_str(&format!(
            "{}:{what}\n    {fate}: {}\n",
            visible(&entry.place.to_string()),
            visible(&entry.how)
        ));
    }
    if args.dry_run {
        for made in &done.manifests {
            out.push_str(&format!("\n{}\n{}", output::bold(&format!("{}.toml", made.name)), made.manifest));
        }
        out.push('\n');
    }
    for file in done.manifests.iter().filter_map(|made| made.file.as_ref()) {
        out.push_str(&format!("{} is written; `bailiwick apply -f` starts it\n", file.display()));
    }
    let Counts { mapped, approximated, refused, ignored } = done.counts;
    out.push_str(&format!(
        "{} manifests; settings: {mapped} mapped, {approximated} approximated, {refused} refused, {ignored} ignored\n",
        done.manifests.len()
    ));
    if done.not_mapped > 0 {
        out.push_str(
            "what is refused makes the service behave, or be protected, otherwise than its unit; read why, and --accept KEY what you can do without\n",
        );
    }
    out
}

/// All or nothing, as far as what is there already is known.
fn write(folder: &Path, manifests: &[Made], force: bool) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .create(folder)
        .with_context(|| format!("making {}", folder.display()))?;
    let files = || manifests.iter().filter_map(|made| Some((made.file.as_ref()?, &made.manifest)));
    let there: Vec<String> = match force {
        true => Vec::new(),
        false => files()
            .filter(|(file, _)| file.symlink_metadata().is_ok())
            .map(|(file, _)| file.display().to_string())
            .collect(),
    };
    if !there.is_empty() {
        let what = format!(
            "{}: there already, and nothing is written; take another --out, or --force",
            there.join(", ")
        );
        return Err(Failure::new(USAGE, what).into());
    }
    for (file, text) in files() {
        let mut options = OpenOptions::new();
        options.write(true);
        if force {
            options.create(true).truncate(true)
        } else {
            options.create_new(true)
        };
        let mut opened = options.open(file).with_context(|| format!("writing {}", file.display()))?;
        opened.write_all(text.as_bytes()).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}
