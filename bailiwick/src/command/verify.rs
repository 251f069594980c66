//! `bailiwick verify`: checks evidence, a proof, or a published log with nothing else: no node, no log, no network.

use std::path::Path;

use anyhow::{Result, bail};
use chain::{
    checkpoint::Checkpoint,
    evidence::{EVIDENCE_BYTES_MAX, EVIDENCE_MAGIC, Evidence, Expected},
    note::{NoteError, VerifierKey},
    tlog_proof::{TLOG_PROOF_MAGIC, TlogProof},
    tree::TreeHash,
};
use serde::Serialize;

use super::{checkpoint, log, published};
use crate::{
    args::{Output, Verify},
    exit::Failure,
    output,
};

/// What was checked, and what it showed.
#[derive(Serialize)]
pub struct Checked {
    pub ok: bool,
    /// `evidence`, `proof` or `published log`.
    pub kind: &'static str,
    pub key: VerifierKey,
    /// Whether the key was given by the caller; otherwise it is the file's own word.
    pub key_given: bool,
    pub size: u64,
    pub root: TreeHash,
    /// Witnesses that signed, and when, in seconds since the Unix epoch.
    pub witnesses: Vec<(String, u64)>,
    /// Size of an older tree that the log was shown to contain.
    pub older_size: Option<u64>,
    pub entries: u64,
    /// The entries that the file holds; those of a published log are not shown.
    pub shown: Vec<log::Shown>,
}

pub fn run(output: Output, args: &Verify) -> Result<()> {
    let mut expected = Expected {
        log: args.key.as_deref().map(str::parse).transpose()?,
        witnesses: args.witness.iter().map(|key| key.parse()).collect::<Result<_, NoteError>>()?,
        remembered: None,
    };
    let kept = args.remembered.as_deref().map(checkpoint::read).transpose()?;
    let checked = if args.path.is_dir() {
        published::check(&args.path, &expected, kept.as_ref())?
    } else {
        let text = checkpoint::read_text(&args.path, EVIDENCE_BYTES_MAX)?;
        match text.split('\n').next() {
            Some(EVIDENCE_MAGIC) => {
                let evidence: Evidence = text.parse().map_err(|error| Failure::refused(&error))?;
                // Believed only as far as the evidence's own key goes; the caller's, where one is given.
                let kept = kept.map(|kept| kept.verify(&evidence.log).cloned()).transpose();
                expected.remembered = kept.map_err(|error| Failure::refused(&error))?;
                evidence_checked(&evidence, &expected)?
            }
            Some(TLOG_PROOF_MAGIC) => proof_checked(&text, &args.path, &expected, args.remembered.is_some())?,
            _ => {
                let what = format!("{} is neither evidence nor a proof", args.path.display());
                return Err(Failure::refused(&what).into());
            }
        }
    };
    show(output, &checked)
}

fn evidence_checked(evidence: &Evidence, expected: &Expected) -> Result<Checked> {
    let found = evidence.verify(expected).map_err(|error| Failure::refused(&error))?;
    Ok(Checked {
        ok: true,
        kind: "evidence",
        key: evidence.log.clone(),
        key_given: expected.log.is_some(),
        size: found.checkpoint.size,
        root: found.checkpoint.root,
        witnesses: found.witnesses,
        older_size: found.older_size,
        entries: evidence.entries.len() as u64,
        shown: evidence.entries.iter().filter_map(|(_, leaf)| log::describe_leaf(leaf)).collect(),
    })
}

fn proof_checked(text: &str, path: &Path, expected: &Expected, remembers: bool) -> Result<Checked> {
    let Some(key) = &expected.log else {
        bail!("a proof holds no key: give the log's with --key, as `bailiwick log checkpoint` prints it");
    };
    if remembers {
        bail!(
            "a proof cannot show that the log still contains what you remember; evidence can (`log export --since`)"
        );
    }
    let proof: TlogProof = text.parse().map_err(|error| Failure::refused(&error))?;
    let Some(leaf) = &proof.extra else {
        let what =
            format!("{} does not hold its entry, so there is nothing to check it against", path.display());
        return Err(Failure::refused(&what).into());
    };
    let Checkpoint { size, root, .. } = *proof.verify(key, leaf).map_err(|error| Failure::refused(&error))?;
    let witnesses = witnesses(&proof.checkpoint, &expected.witnesses)?;
    Ok(Checked {
        ok: true,
        kind: "proof",
        key: key.clone(),
        key_given: true,
        size,
        root,
        witnesses,
        older_size: None,
        entries: 1,
        shown: log::describe_leaf(leaf).into_iter().collect(),
    })
}

/// What these witnesses signed; each must have.
pub fn witnesses(
    signed: &chain::checkpoint::SignedCheckpoint,
    keys: &[VerifierKey],
) -> Result<Vec<(String, u64)>> {
    let time = |key: &VerifierKey| {
        let found = signed.note().verify(key).map_err(|error| Failure::refused(&error))?;
        let Some(time_s) = found.time_s else {
            bail!("{} is no key of a witness (type 4)", key.name());
        };
        Ok((key.name().to_owned(), time_s))
    };
    keys.iter().map(time).collect()
}

fn show(output: Output, checked: &Checked) -> Result<()> {
    output::show(output, checked, || {
        let mut text: String = checked.shown.iter().map(log::line).collect();
        let Checked { kind, entries, size, root, .. } = checked;
        text.push_str(&format!(
            "{}: {kind}, {entries} entries of a log of {size}, root {root}\n",
            output::good("holds")
        ));
        for (name, time_s) in &checked.witnesses {
            text.push_str(&format!("witnessed by {name} at {time_s} (seconds since 1970)\n"));
        }
        if let Some(older) = checked.older_size {
            text.push_str(&format!("the log still contains its first {older} entries unchanged\n"));
        }
        text.push_str(&format!("signed by {}\n", checked.key));
        if !checked.key_given {
            text.push_str(
                "that this is the key of the log you mean is not shown: compare it, or give it with --key\n",
            );
        }
        text
    })
}
