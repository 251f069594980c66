//! Section `verify`: what the node gives away convinces a stranger, and nothing that was changed, cut back or rolled back
//! does: evidence, a published log, a witness.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context as _, Result};
use chain::evidence::{Evidence, EvidenceError, Expected};
use serde_json::Value;
use sim::Random;

use super::{Context, Section, Site};
use crate::exit::DAMAGED;

/// Changes of an evidence file that a stranger must notice, beside one for each entry.
const CHANGES: u64 = 2_000;
/// Entries from before the kept checkpoint in that file: each change reads it whole, and a log of thousands shows no more.
const ENTRIES_BEFORE: u64 = 32;
/// More of them would only repeat what is known by then.
const MISSED_SHOWN_MAX: usize = 10;

pub fn run(context: &mut Context) -> Result<Section> {
    let mut section = Section::new("verify");
    let changes = Changes {
        seed: context.seed,
        without_tree: context.is_broken("tree"),
        without_signature: context.is_broken("checkpoint-signature"),
    };
    let site = context.site()?;
    let folder = site.folder("verify")?;
    let kept = keep(site, &folder)?;
    evidence(&mut section, site, &folder, &kept, &changes)?;
    published(&mut section, site, &folder, &kept)?;
    witness(&mut section, site, &folder, &kept)?;
    Ok(section)
}

/// A checkpoint as somebody keeps it elsewhere, before the log goes on.
struct Kept {
    file: PathBuf,
    key: String,
    size: u64,
}

fn keep(site: &Site, folder: &Path) -> Result<Kept> {
    let shown = site.json(&["log", "checkpoint"])?;
    let text = |name: &str| shown.get(name).and_then(Value::as_str).context("a checkpoint without its parts");
    let file = folder.join("kept");
    fs::write(&file, text("signed")?)?;
    let size = shown.get("size").and_then(Value::as_u64).context("a checkpoint without a size")?;
    Ok(Kept { file, key: text("key")?.to_owned(), size })
}

/// Lets the log grow.
fn grow(site: &Site) -> Result<()> {
    site.done(&["run", "--", "/bin/true"]).map(drop)
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().context("a folder whose name is no text")
}

struct Changes {
    seed: u64,
    without_tree: bool,
    without_signature: bool,
}

/// Exported, checked by the command, then changed in every way that one letter allows.
fn evidence(section: &mut Section, site: &Site, folder: &Path, kept: &Kept, changes: &Changes) -> Result<()> {
    grow(site)?;
    let file = folder.join("evidence");
    let (file, since) = (utf8(&file)?, utf8(&kept.file)?);
    let from = kept.size.saturating_sub(ENTRIES_BEFORE).to_string();
    let export = site.tell(&["log", "export", "--from", &from, "--since", since, "-o", file])?;
    section.check(export.status.success(), format!("evidence was not made: {}", said(&export)));
    let check = ["verify", file, "--key", &kept.key, "--remembered", since];
    let checked = site.tell(&check)?;
    section.check(checked.status.success(), format!("evidence does not hold: {}", said(&checked)));
    let text = fs::read_to_string(file)?;
    let expected = Expected { log: Some(kept.key.parse()?), ..Expected::default() };
    let check = |text: &str| -> Result<(), EvidenceError> {
        let evidence: Evidence = text.parse()?;
        if changes.without_tree {
            // Without the tree the log's signature says nothing of the entries.
            evidence.verify_signatures(&expected).map(drop)
        } else if changes.without_signature {
            // Without the signature anybody makes a tree.
            evidence.verify_tree(evidence.checkpoint.unverified())
        } else {
            evidence.verify(&expected).map(drop)
        }
    };
    let mut random = Random::new(changes.seed);
    let anywhere = (0..CHANGES).map(|_| random.below(text.len() as u64) as usize).collect::<Vec<_>>();
    let in_entries = text.match_indices("\nentry ").map(|(at, line)| {
        let end = text.get(at + line.len()..).and_then(|rest| rest.find('\n')).unwrap_or(0);
        at + line.len() + end / 2
    });
    for at in anywhere.into_iter().chain(in_entries) {
        let mut bytes = text.clone().into_bytes();
        if let Some(byte) = bytes.get_mut(at) {
            // Another letter, and for letters and digits one of the same alphabet.
            *byte = if matches!(*byte, b'A' | b'a' | b'0') { *byte + 1 } else { byte.saturating_sub(1) };
        }
        section.count("evidence changed", 1);
        let held = String::from_utf8(bytes).is_ok_and(|text| check(&text).is_ok());
        if held {
            section.miss(format!("evidence holds although byte {at} was changed"));
            if section.missed.len() >= MISSED_SHOWN_MAX {
                break;
            }
        }
    }
    Ok(())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// Published twice, checked, then with every file damaged, then with the log rolled back.
fn published(section: &mut Section, site: &Site, folder: &Path, kept: &Kept) -> Result<()> {
    let dir = folder.join("published");
    let (dir, old) = (utf8(&dir)?, utf8(&kept.file)?);
    let first = site.tell(&["log", "publish", dir, "--checkpoint", old])?;
    section.check(first.status.success(), format!("the log was not published: {}", said(&first)));
    grow(site)?;
    let second = site.tell(&["log", "publish", dir])?;
    section.check(second.status.success(), format!("the log was not published again: {}", said(&second)));
    let checked = site.tell(&["verify", dir, "--key", &kept.key, "--remembered", old])?;
    section.check(checked.status.success(), format!("the published log does not hold: {}", said(&checked)));
    for file in needed(Path::new(dir))? {
        let sound = fs::read(&file)?;
        let mut damaged = sound.clone();
        if let Some(byte) = damaged.last_mut() {
            *byte ^= 1;
        }
        fs::write(&file, damaged)?;
        let found = site.tell(&["verify", dir, "--key", &kept.key])?;
        fs::write(&file, sound)?;
        section.count("published files damaged", 1);
        let refused = found.status.code() == Some(DAMAGED.into());
        section.check(refused, format!("damage in {} was not found", file.display()));
    }
    let back = site.tell(&["log", "publish", dir, "--checkpoint", old])?;
    section.check(back.status.code() == Some(DAMAGED.into()), "a log that was rolled back was published");
    let now = folder.join("now");
    fs::write(&now, site.done(&["log", "checkpoint"])?)?;
    let shorter = folder.join("shorter");
    site.done(&["log", "publish", utf8(&shorter)?, "--checkpoint", old])?;
    let cut = site.tell(&["verify", utf8(&shorter)?, "--key", &kept.key, "--remembered", utf8(&now)?])?;
    section.check(cut.status.code() == Some(DAMAGED.into()), "a log that was cut back was not noticed");
    Ok(())
}

/// The files of a published log that its checkpoint needs: all but partial ones of earlier checkpoints.
fn needed(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let partial = folder.extension().is_some_and(|extension| extension == "p");
        let mut here = Vec::new();
        for file in fs::read_dir(&folder)? {
            let path = file?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name != ".lock") {
                here.push(path);
            }
        }
        if partial {
            let width = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u64>().ok();
            here = here.into_iter().max_by_key(width).into_iter().collect();
        }
        files.extend(here);
    }
    Ok(files)
}

/// A witness signs that the log grew, and refuses what it did not see grow.
fn witness(section: &mut Section, site: &Site, folder: &Path, kept: &Kept) -> Result<()> {
    let home = folder.join("witness");
    let (dir, shorter) = (folder.join("published"), folder.join("shorter"));
    let (home, dir, shorter) = (utf8(&home)?, utf8(&dir)?, utf8(&shorter)?);
    let key = site.done(&["witness", "init", home, "witness.example/prove"])?;
    let key = key.trim();
    site.done(&["witness", "trust", home, &kept.key])?;
    let request = site.done(&["log", "request", shorter])?;
    let first = give(site, &["witness", "add", home], &request)?;
    section.check(first.status.success(), format!("the witness did not sign: {}", said(&first)));
    let size = kept.size.to_string();
    let request = site.done(&["log", "request", dir, "--old", &size])?;
    let grown = give(site, &["witness", "add", home], &request)?;
    section.check(grown.status.success(), format!("the witness did not sign growth: {}", said(&grown)));
    let answer = String::from_utf8(grown.stdout)?;
    let taken = give(site, &["log", "cosign", dir, "--witness", key], &answer)?;
    section.check(taken.status.success(), format!("the signature was not taken: {}", said(&taken)));
    let checked = site.tell(&["verify", dir, "--key", &kept.key, "--witness", key])?;
    section.check(checked.status.success(), format!("the witnessed log does not hold: {}", said(&checked)));
    let request = site.done(&["log", "request", shorter, "--old", &size])?;
    let back = give(site, &["witness", "add", home], &request)?;
    section.check(!back.status.success(), "the witness signed a log that was rolled back");
    section.count("witnessed", 2);
    Ok(())
}

/// Runs a command of the product with this standard input.
fn give(site: &Site, args: &[&str], input: &str) -> Result<Output> {
    let mut command = site.command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("running bailiwick {}", args.join(" ")))?;
    child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
    Ok(child.wait_with_output()?)
}
