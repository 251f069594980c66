//! A passphrase from a terminal that does not show it, from a file, or from standard input.

use std::{
    io::{BufRead, Read, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};
use seal::{SECRET_BYTES_MAX, SecretKind};
use supervisor::sealing::Secret;
use zeroize::Zeroizing;

use crate::terminal::{self, Silent};

/// What a terminal sends for ^C.
const INTERRUPT: u8 = 3;

/// One that was given before. Its length is looked at before anything else is done with it.
pub fn read(file: Option<&Path>, prompt: &str) -> Result<Secret> {
    let bytes = match file {
        Some(file) if file != Path::new("-") => {
            let opened = std::fs::File::open(file).with_context(|| format!("opening {}", file.display()))?;
            whole(opened).with_context(|| format!("reading {}", file.display()))?
        }
        None if terminal::types() => typed(prompt)?,
        _ => whole(std::io::stdin()).context("reading the passphrase from standard input")?,
    };
    secret(&bytes)
}

/// A new one, typed twice where it is typed.
pub fn read_new(file: Option<&Path>) -> Result<Secret> {
    if file.is_some() || !terminal::types() {
        return read(file, "");
    }
    let first = typed("new passphrase: ")?;
    let secret = secret(&first)?;
    if typed("once more: ")? != first {
        bail!("the two passphrases differ; nothing was changed");
    }
    Ok(secret)
}

fn secret(bytes: &[u8]) -> Result<Secret> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    SecretKind::Passphrase.check(bytes)?;
    Ok(Secret::new(SecretKind::Passphrase, bytes))
}

/// Never more than one that is too long, so that it is refused and not cut.
fn whole(from: impl Read) -> Result<Zeroizing<Vec<u8>>> {
    // One allocation: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 2));
    from.take(SECRET_BYTES_MAX as u64 + 2).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn typed(prompt: &str) -> Result<Zeroizing<Vec<u8>>> {
    let _silent = Silent::enter()?;
    eprint!("{prompt}");
    std::io::stderr().flush().context("asking on the terminal")?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 2));
    let read = std::io::stdin().lock().take(SECRET_BYTES_MAX as u64 + 2).read_until(b'\n', &mut bytes);
    eprintln!();
    read.context("reading the passphrase")?;
    if bytes.contains(&INTERRUPT) {
        bail!("interrupted");
    }
    Ok(bytes)
}
