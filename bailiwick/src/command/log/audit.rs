//! `bailiwick log audit`: whether each receipt in a range of the log holds, and one hash over what was found.

use std::{collections::BTreeMap, io::Read, path::Path};

use anyhow::{Context, Result, bail};
use base::{AxiomRef, Hash, IdentityId, Sequence, key_paths};
use chain::{
    EntryType,
    payload::{Payload, Receipt},
    verify_log,
};
use job::{AuditTrail, Outcome, Recorded, limits::RECEIPT_BYTES_MAX};
use serde::Serialize;

use super::parse_range;
use crate::{
    args::Output,
    command::{checkpoint, log_files::LogFiles},
    exit::{DAMAGED, DIFFERS, Failure},
    output,
};

/// Entries of one audit, kept until all that could close them was read: some 50 MB.
const ENTRIES_MAX: usize = 1 << 18;
/// Whose key signs receipts.
const ISSUER: &str = "process_manager";

#[derive(Serialize)]
struct Audited {
    from: Sequence,
    to: Sequence,
    trail: AuditTrail,
    receipts: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    entry: Sequence,
    #[serde(rename = "type")]
    entry_type: &'static str,
    /// The entry that closes it.
    receipt: Sequence,
    /// Of the signed receipt where there is one, else of the entry that closes.
    receipt_hash: Hash,
    #[serde(flatten)]
    outcome: Outcome,
}

/// A receipt on record.
struct Closing {
    at: AxiomRef,
    body: Receipt,
}

#[derive(Default)]
struct Found {
    entries: Vec<(AxiomRef, EntryType)>,
    closings: BTreeMap<Sequence, Vec<Closing>>,
    too_many: bool,
}

impl Found {
    fn take(&mut self, (from, to): (u64, u64), at: AxiomRef, kind: EntryType, payload: &[u8]) {
        let in_range = |sequence: Sequence| (from..=to).contains(&sequence.0);
        if in_range(at.sequence) {
            self.too_many |= self.entries.len() >= ENTRIES_MAX;
            if !self.too_many {
                self.entries.push((at, kind));
            }
        }
        // What closes an entry comes after it, maybe behind the range.
        if kind == EntryType::Receipt
            && let Ok(Payload::Receipt(envelope)) = Payload::decode(kind.code(), payload)
            && in_range(envelope.body.axiom_entry.sequence)
        {
            let of = self.closings.entry(envelope.body.axiom_entry.sequence).or_default();
            of.push(Closing { at, body: envelope.body });
        }
    }

    fn is_all(&self) -> Result<()> {
        if self.too_many {
            bail!("one audit takes at most {ENTRIES_MAX} entries; name a part of them, FROM..TO");
        }
        Ok(())
    }
}

/// Out of the files, as a node may be writing them; receipts of jobs are in `images`.
pub fn audit(output: Output, folder: &Path, images: &Path, range: Option<&str>) -> Result<()> {
    let wanted = range.map_or(Ok((0, u64::MAX)), parse_range)?;
    let issuer = issuer(folder)?;
    let mut found = Found::default();
    let open = || LogFiles::reaching(folder, &[], Sequence(wanted.0));
    let (files, outcome) = LogFiles::reading(open, |files| {
        found = Found::default();
        verify_log(files, &files.options(), |placed| {
            let header = &placed.record.header;
            let at = AxiomRef { sequence: header.sequence, hash: placed.hash };
            found.take(wanted, at, header.entry_type, placed.record.payload);
        })
    })?;
    match outcome {
        // The end of a log that is being written may look torn.
        Err(fault) if !fault.may_be_torn_tail => return Err(files.fault(&fault).into()),
        _ => {}
    }
    found.is_all()?;
    let (Some(first), Some(last)) = (found.entries.first(), found.entries.last()) else {
        bail!("the log has no entry of that range");
    };
    let (from, to) = (first.0.sequence, last.0.sequence);
    let mut trail = AuditTrail::default();
    let mut receipts = Vec::new();
    for (entry, kind) in &found.entries {
        let closings = found.closings.remove(&entry.sequence).unwrap_or_default();
        let judged: Vec<_> = closings.iter().map(|closing| judge(*entry, closing, issuer, images)).collect();
        trail.add(&entry.hash, &judged);
        receipts.extend(judged.into_iter().zip(&closings).map(|((receipt_hash, outcome), closing)| Row {
            entry: entry.sequence,
            entry_type: kind.name(),
            receipt: closing.at.sequence,
            receipt_hash,
            outcome,
        }));
    }
    let audited = Audited { from, to, trail, receipts };
    output::show(output, &audited, || audited.text())?;
    audited.verdict()
}

fn issuer(folder: &Path) -> Result<IdentityId> {
    let path = format!("{}/{ISSUER}", key_paths::SERVICES);
    let identities = checkpoint::genesis(folder)?.0.identities;
    let found = identities.into_iter().find(|identity| identity.key_path.to_string() == path);
    Ok(found.with_context(|| format!("genesis names no identity at {path}"))?.identity_id)
}

fn judge(entry: AxiomRef, closing: &Closing, issuer: IdentityId, images: &Path) -> (Hash, Outcome) {
    let cited = closing.body.axiom_entry;
    let hash = closing.body.proof.unwrap_or(closing.at.hash);
    if cited != entry {
        return (hash, Outcome::Failed(format!("it cites {cited}, which is not the entry of that number")));
    }
    let Some(receipt) = closing.body.proof else { return (hash, Outcome::Passed) };
    let recorded = Recorded { entry, issuer, receipt, outputs: &closing.body.outputs };
    let path = images.join(format!("blake3-{}", receipt.to_hex()));
    let mut bytes = Vec::new();
    let read = std::fs::File::open(&path)
        .and_then(|file| file.take(RECEIPT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) => (hash, recorded.check(&bytes)),
        Err(error) => (hash, Outcome::Error(format!("reading {}: {error}", path.display()))),
    }
}

impl Audited {
    fn text(&self) -> String {
        let mut text = String::new();
        for row in &self.receipts {
            let (word, why) = match &row.outcome {
                Outcome::Passed => continue,
                Outcome::Failed(why) => ("failed", why),
                Outcome::Error(why) => ("could not be checked", why),
            };
            let (entry, kind, receipt) = (row.entry, row.entry_type, row.receipt);
            text.push_str(&format!("receipt {receipt} of {kind} {entry} {word}: {why}\n"));
        }
        let AuditTrail { hash, entries, passed, failed, errors } = &self.trail;
        text.push_str(&format!(
            "entries {} to {}, {entries} of them: {passed} receipts passed, {failed} failed, {errors} could not be checked\n\
             trail {hash}\n",
            self.from, self.to
        ));
        text
    }

    fn verdict(&self) -> Result<()> {
        let AuditTrail { failed, errors, .. } = self.trail;
        match (failed, errors) {
            (0, 0) => Ok(()),
            (0, _) => Err(Failure::new(DIFFERS, format!("{errors} receipts could not be checked")).into()),
            _ => Err(Failure::new(DAMAGED, format!("{failed} receipts do not hold")).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(found: &mut Found, range: (u64, u64), sequence: u64) {
        let at = AxiomRef { sequence: Sequence(sequence), hash: Hash::ZERO };
        found.take(range, at, EntryType::Shutdown, &[]);
    }

    #[test]
    fn an_audit_takes_so_many_entries_and_with_one_more_it_is_none() {
        let range = (1, u64::MAX);
        let mut found = Found::default();
        (0..=ENTRIES_MAX as u64).for_each(|sequence| take(&mut found, range, sequence));
        assert_eq!(found.entries.len(), ENTRIES_MAX, "what is not asked for does not count");
        found.is_all().unwrap();
        take(&mut found, range, ENTRIES_MAX as u64 + 1);
        let error = found.is_all().unwrap_err().to_string();
        assert_eq!(error, "one audit takes at most 262144 entries; name a part of them, FROM..TO");
        take(&mut found, range, ENTRIES_MAX as u64 + 2);
        assert_eq!(found.entries.len(), ENTRIES_MAX, "nor is it kept");
    }
}
