//! Generates `crates/contracts/src/generated/` from `proto/`, and keeps `proto/contracts.lock`.
//!
//! Promise: what is committed equals what `proto/` says (`--check`), and a change that would break a client built
//! from an older `proto/` is refused, unless the package gets a new version in its path.
//! Never: touches anything outside those two places; needs protoc; runs as part of an ordinary build. It is a crate of
//! its own because protox and prost-build are the heaviest build dependencies here and nothing else needs them.

mod generate;
mod lock;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
usage: cargo xtask contracts [--check] [--new-baseline]
  (nothing)        compile proto/, write crates/contracts/src/generated/, add to proto/contracts.lock
  --check          write nothing; exit 1 if the committed files differ from proto/ or a change breaks older clients
  --new-baseline   write proto/contracts.lock anew even if that drops or changes something (before a first release only)";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Write,
    Check,
    NewBaseline,
}

fn main() -> ExitCode {
    let mode = match std::env::args().nth(1).as_deref() {
        None => Mode::Write,
        Some("--check") => Mode::Check,
        Some("--new-baseline") => Mode::NewBaseline,
        Some("-h" | "--help") => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Some(other) => {
            eprintln!("contracts: unknown argument `{other}`\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(mode) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("contracts: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mode: Mode) -> Result<()> {
    let root = workspace_root()?;
    let proto = root.join("proto");
    let files = generate::proto_files(&proto)?;
    if files.is_empty() {
        bail!("no .proto file under {}", proto.display());
    }
    let set = generate::compile(&proto, &files)?;

    let now = lock::Surface::of(&set);
    let lock_path = proto.join("contracts.lock");
    let text = if lock_path.exists() {
        std::fs::read_to_string(&lock_path).with_context(|| format!("reading {}", lock_path.display()))?
    } else {
        String::new()
    };
    let before = lock::Surface::parse(&text).context("reading proto/contracts.lock")?;
    if mode != Mode::NewBaseline {
        refuse_breaks(&before, &now)?;
    }

    let temp = tempfile::tempdir().context("making a temporary folder")?;
    generate::generate(set, temp.path())?;
    let target = root.join("crates/contracts/src/generated");
    let stale = generate::differences(temp.path(), &target)?;

    if mode == Mode::Check {
        let mut stale: Vec<String> =
            stale.iter().map(|d| format!("crates/contracts/src/generated/{}", d.name)).collect();
        if now.to_text() != text {
            stale.push("proto/contracts.lock".to_owned());
        }
        if !stale.is_empty() {
            bail!("not up to date with proto/: {}; run `cargo xtask contracts` and commit", stale.join(", "));
        }
        println!("contracts: {} proto files, {} names, up to date", files.len(), now.len());
        return Ok(());
    }

    generate::install(temp.path(), &target, &stale)?;
    if now.to_text() != text {
        std::fs::write(&lock_path, now.to_text())
            .with_context(|| format!("writing {}", lock_path.display()))?;
    }
    println!(
        "contracts: {} proto files, {} names, {} generated files changed",
        files.len(),
        now.len(),
        stale.len()
    );
    Ok(())
}

fn refuse_breaks(before: &lock::Surface, now: &lock::Surface) -> Result<()> {
    let breaks = before.broken_by(now);
    if breaks.is_empty() {
        return Ok(());
    }
    for line in &breaks {
        eprintln!("  {line}");
    }
    bail!(
        "{} change(s) break clients built from the committed contracts; keep the old names and numbers, \
         or move the package to its next version (…/v1 to …/v2)",
        breaks.len()
    )
}

fn workspace_root() -> Result<PathBuf> {
    // This crate lies in <root>/xtask/contracts-gen. Asked at run time: two checkouts may share a target directory,
    // and with it this executable.
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .context("the crate does not lie two folders below the workspace")
}
