//! `bailiwick log`: everything here but `--follow` and `head` works on files alone, with no service running.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, bail};
use base::{AxiomRef, Sequence, layout::Layout};
use chain::{
    EntryHeader, EntryType, Placed, SignedHead, VerifyOptions,
    checkpoint::Checkpoint,
    log_edge::LogEdge,
    payload::Payload,
    tree::{Edge, TreeHash},
    verify_in_parallel, verify_log,
};
use serde::Serialize;

use super::{checkpoint, log_files::LogFiles};
use crate::{
    args::{Log as LogCommand, Output},
    exit::{DAMAGED, Failure},
    node::{Node, failed},
    output,
};

/// Entries shown when no range is given.
const SHOW_DEFAULT: u64 = 20;
/// How often `--follow` looks.
const FOLLOW_PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

#[derive(Serialize)]
struct Verified {
    ok: bool,
    segments: u64,
    groups: u64,
    entries: u64,
    /// The first entry that was read; what lies before it is archived.
    first: Sequence,
    head: Option<AxiomRef>,
    /// The head that it was checked against, if one was given.
    checked_against: Option<AxiomRef>,
    /// The checkpoint that it was checked against, if one was given.
    checkpoint: Option<Checkpoint>,
}

/// Threads that read a log at once: each holds a segment's hashes.
const THREADS_MAX: usize = 8;

/// As many as there are cores, within reason.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(THREADS_MAX)
}

/// Reads everything, believes nothing; names the first damaged entry, header or padding byte.
pub fn verify(output: Output, folders: &[PathBuf], head: Option<&Path>, kept: Option<&Path>) -> Result<()> {
    let files = LogFiles::of(folders)?;
    // Where genesis is, or the edge that holds it.
    let named = folders.iter().find(|folder| checkpoint::genesis(folder).is_ok());
    let folder = named.or(folders.first()).context("no folder was named")?;
    let checked_against = head.map(|file| signed_head(folder, file)).transpose()?;
    let checkpoint = kept.map(|file| signed_checkpoint(folder, file)).transpose()?;
    let options = VerifyOptions { head: checked_against, ..files.options() };
    // What the log signed of itself when segments were archived.
    let archived = files.edge.as_ref().map(LogEdge::checkpoint).transpose()?;
    let mut tree = files.tree();
    let (mut found, mut found_archived) = (None, None);
    if let Some(kept) = checkpoint.as_ref().filter(|kept| kept.size < tree.size()) {
        let text = format!(
            "the checkpoint of {} entries lies before entry {}, where this log begins: name the archive's folder too\n{}",
            kept.size,
            files.first,
            files.note()
        );
        return Err(Failure::new(crate::exit::USAGE, text).into());
    }
    let size = |checkpoint: &Option<Checkpoint>| checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
    let (kept_size, archived_size) = (size(&checkpoint), size(&archived));
    let edge_at = files.edge.as_ref().map(|edge| edge.last);
    let other_edge = AtomicBool::new(false);
    let leaf = |placed: &Placed<'_>| {
        let header = &placed.record.header;
        if edge_at.is_some_and(|at| at.sequence == header.sequence && at.hash != placed.hash) {
            other_edge.store(true, Ordering::Relaxed);
        }
        (header.sequence.0 < kept_size.max(archived_size))
            .then(|| TreeHash::leaf_of(&[&header.encode(), placed.record.payload]))
    };
    let mut compare = |tree: &Edge| {
        if tree.size() == kept_size {
            found = Some(tree.root());
        }
        if tree.size() == archived_size {
            found_archived = Some(tree.root());
        }
    };
    compare(&tree);
    let report = verify_in_parallel(&files, &options, threads(), leaf, |leaf| {
        if let Some(leaf) = leaf {
            tree.push(leaf, |_, _| {});
            compare(&tree);
        }
    })
    .map_err(|fault| Failure::damaged(&fault))?;
    let end = report.last.map_or(0, |last| last.sequence.0.saturating_add(1));
    check_root(checkpoint.as_ref(), found, end)?;
    check_root(archived.as_ref(), found_archived, end)?;
    if other_edge.into_inner() {
        return Err(Failure::new(
            DAMAGED,
            "the archive does not lead to the log's edge: it is of another log",
        )
        .into());
    }
    let verified = Verified {
        ok: true,
        segments: report.segments,
        groups: report.groups,
        entries: report.entries,
        first: report.first,
        head: report.last,
        checked_against,
        checkpoint,
    };
    output::show(output, &verified, || {
        let last = report.last.map_or_else(|| "none".to_owned(), |last| last.to_string());
        let mut against = files.note();
        if let Some(archived) = &archived {
            against.push_str(&format!("contains the checkpoint of {} entries of its edge\n", archived.size));
        }
        if let Some(head) = checked_against {
            against.push_str(&format!("contains the head {head}\n"));
        }
        if let Some(checkpoint) = &verified.checkpoint {
            against.push_str(&format!("contains the checkpoint of {} entries\n", checkpoint.size));
        }
        if checked_against.is_none() && verified.checkpoint.is_none() {
            against.push_str(
                "nothing was given to check against: that nothing was cut off the end is not shown ",
            );
            against.push_str("(--head FILE, --checkpoint FILE)\n");
        }
        format!(
            "{}: {} entries in {} groups and {} segments\nlast entry {last}\n{against}",
            output::good("sound"),
            report.entries,
            report.groups,
            report.segments
        )
    })
}

fn signed_checkpoint(folder: &Path, file: &Path) -> Result<Checkpoint> {
    let key = checkpoint::key_of(folder)?;
    let signed = checkpoint::read(file)?;
    let checkpoint = signed
        .verify(&key)
        .with_context(|| format!("{} is not a checkpoint signed by this log's sequencer", file.display()))?;
    Ok(checkpoint.clone())
}

fn check_root(kept: Option<&Checkpoint>, found: Option<TreeHash>, entries: u64) -> Result<(), Failure> {
    let Some(kept) = kept.filter(|kept| found != Some(kept.root)) else { return Ok(()) };
    let text = match found {
        None => format!(
            "the log ends at {entries} entries, its checkpoint has {}: entries are missing",
            kept.size
        ),
        Some(_) => {
            format!("the first {} entries are not those of the checkpoint: history was changed", kept.size)
        }
    };
    Err(Failure::new(DAMAGED, text))
}

/// The entry that a signed head names, checked with the sequencer's key as genesis pins it.
fn signed_head(folder: &Path, file: &Path) -> Result<AxiomRef> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("reading the signed head {}", file.display()))?;
    let key = checkpoint::genesis(folder)?.0.sequencer_key;
    let head = SignedHead::new(text)?
        .verify(&key)
        .with_context(|| format!("{} is not a head signed by this log's sequencer", file.display()))?;
    Ok(head.head)
}

/// An entry as people read it.
#[derive(Serialize)]
pub struct Shown {
    sequence: Sequence,
    #[serde(rename = "type")]
    entry_type: String,
    axiom_time_ns: u64,
    hash: base::Hash,
    submitter: Option<base::IdentityId>,
    authorization: Option<base::Hash>,
    body: serde_json::Value,
}

/// Which entries to show.
#[derive(Clone, Copy)]
pub enum Which<'a> {
    Range(&'a str),
    /// So many at the end.
    Last(u64),
}

impl<'a> Which<'a> {
    pub fn of(range: Option<&'a str>) -> Self {
        range.map_or(Self::Last(SHOW_DEFAULT), Self::Range)
    }
}

/// Shows entries out of the files, as a node may be writing them.
pub fn show(output: Output, folder: &Path, which: Which<'_>, types: &[String]) -> Result<()> {
    let types = types.iter().map(|name| parse_type(name)).collect::<Result<Vec<_>>>()?;
    let ((from, to), last) = match which {
        Which::Range(range) => (parse_range(range)?, u64::MAX),
        Which::Last(last) => ((0, u64::MAX), last),
    };
    let mut shown = std::collections::VecDeque::new();
    let files = match which {
        Which::Range(_) => LogFiles::reaching(folder, &[], Sequence(from))?,
        Which::Last(_) => LogFiles::open(folder, &[])?,
    };
    let outcome = verify_log(&files, &files.options(), |placed| {
        let header = &placed.record.header;
        let wanted = types.is_empty() || types.iter().any(|known| known.code() == header.entry_type.code());
        if !wanted || !(from..=to).contains(&header.sequence.0) {
            return;
        }
        shown.push_back(describe(header, placed.record.payload, placed.hash));
        if shown.len() as u64 > last {
            shown.pop_front();
        }
    });
    let shown: Vec<Shown> = shown.into();
    output::show(output, &shown, || shown.iter().map(line).collect())?;
    match outcome {
        // The end of a log that is being written may look torn; everything above it was shown.
        Err(fault) if !fault.may_be_torn_tail => Err(Failure::damaged(&fault).into()),
        _ => Ok(()),
    }
}

/// An entry out of a leaf of the tree; None for what no entry looks like.
pub fn describe_leaf(leaf: &[u8]) -> Option<Shown> {
    let header = EntryHeader::decode(leaf).ok()?;
    let payload = leaf.get(base::limits::ENTRY_HEADER_BYTES..)?;
    Some(describe(&header, payload, base::Hash::of(leaf)))
}

fn describe(header: &EntryHeader, payload: &[u8], hash: base::Hash) -> Shown {
    let payload = Payload::decode(header.entry_type.code(), payload);
    let (head, body) = match &payload {
        Ok(payload) => (Some(payload.head()), body_json(payload)),
        Err(error) => (None, serde_json::json!({ "undecoded": error.to_string() })),
    };
    Shown {
        sequence: header.sequence,
        entry_type: header.entry_type.name().to_owned(),
        axiom_time_ns: header.timestamp.0,
        hash,
        submitter: head.map(|head| head.submitter),
        authorization: head.and_then(|head| head.authorization),
        body,
    }
}

/// A decision's body is kept as the bytes that were signed; people want to read it.
fn body_json(payload: &Payload) -> serde_json::Value {
    let json = match payload {
        Payload::PolicyDecision(envelope) => {
            envelope.body.decode_body().ok().and_then(|body| serde_json::to_value(body).ok())
        }
        other => other.body_json(serde_json::value::Serializer).ok(),
    };
    json.unwrap_or(serde_json::Value::Null)
}

pub fn line(shown: &Shown) -> String {
    let body: String = shown.body.to_string().chars().take(160).collect();
    format!("{:>8}  {:<16}  {}\n", shown.sequence.0, shown.entry_type, body)
}

fn parse_type(name: &str) -> Result<EntryType> {
    let known = || EntryType::ALL.iter().map(|known| known.name()).collect::<Vec<_>>().join(", ");
    let found = EntryType::ALL.iter().find(|known| known.name().eq_ignore_ascii_case(name));
    found.copied().with_context(|| format!("{name:?} is no entry type; there are {}", known()))
}

/// `N` or `FROM..TO`, either end may be left out.
fn parse_range(text: &str) -> Result<(u64, u64)> {
    let number = |text: &str, default| {
        if text.is_empty() {
            Ok(default)
        } else {
            text.parse().with_context(|| format!("{text:?} is no sequence"))
        }
    };
    match text.split_once("..") {
        Some((from, to)) => Ok((number(from, 0)?, number(to, u64::MAX)?)),
        None => {
            let only = number(text, 0)?;
            Ok((only, only))
        }
    }
}

#[derive(Serialize)]
struct Replayed {
    state_hash: base::Hash,
    head: Option<AxiomRef>,
    entries: u64,
    decisions: u64,
    /// Decisions that come out otherwise when they are made again from the log alone.
    mismatches: Vec<u64>,
}

/// Folds the log from genesis, makes every decision again at its own position, and prints the state's hash.
pub fn replay(output: Output, folders: &[PathBuf]) -> Result<()> {
    let (folder, archives) = folders.split_first().context("no folder was named")?;
    let mut state = axiom::core::ControlState::default();
    let mut engine = ::policy::core::verify::Replay::default();
    let mut replayed = Replayed {
        state_hash: base::Hash::ZERO,
        head: None,
        entries: 0,
        decisions: 0,
        mismatches: Vec::new(),
    };
    let mut unreadable = None;
    let files = LogFiles::whole(folder, archives)?;
    let report = verify_log(&files, &files.options(), |placed| {
        let header = &placed.record.header;
        let code = header.entry_type.code();
        if let Ok(payload) = Payload::decode(code, placed.record.payload) {
            state.apply(header.sequence, &payload);
        }
        let at = AxiomRef { sequence: header.sequence, hash: placed.hash };
        match engine.step(at, code, placed.record.payload) {
            Ok(None) => {}
            Ok(Some(verification)) => {
                replayed.decisions += 1;
                if verification != ::policy::core::verify::Verification::Verified {
                    replayed.mismatches.push(header.sequence.0);
                }
            }
            Err(error) => {
                unreadable.get_or_insert_with(|| format!("entry {}: {error}", header.sequence));
            }
        }
    })
    .map_err(|fault| Failure::damaged(&fault))?;
    if let Some(unreadable) = unreadable {
        bail!("{unreadable}");
    }
    replayed.state_hash = state.hash();
    (replayed.head, replayed.entries) = (report.last, report.entries);
    output::show(output, &replayed, || {
        format!(
            "{} entries folded, {} decisions made again, {} came out otherwise\nstate {}\n",
            replayed.entries,
            replayed.decisions,
            replayed.mismatches.len(),
            replayed.state_hash
        )
    })?;
    match replayed.mismatches.first() {
        None => Ok(()),
        Some(first) => {
            Err(Failure::new(DAMAGED, format!("decision {first} is not what its log gives")).into())
        }
    }
}

#[derive(Serialize)]
struct SignedText {
    head: AxiomRef,
    signed: String,
}

/// What needs the service: the signed head, and entries as they come.
pub async fn online(node: &Node, output: Output, command: LogCommand) -> Result<()> {
    match command {
        LogCommand::Head => head(node, output).await,
        LogCommand::Show { range, types, .. } => {
            follow(node, output, Which::of(range.as_deref()), &types).await
        }
        LogCommand::Tail { lines, types, .. } => follow(node, output, Which::Last(lines), &types).await,
        LogCommand::Follow { types } => follow(node, output, Which::Last(0), &types).await,
        // Those that work on files alone.
        _ => Ok(()),
    }
}

async fn head(node: &Node, output: Output) -> Result<()> {
    let mut axiom = node.axiom("system.axiom.get_head")?;
    let request = contracts::axiom::v1::GetHeadRequest {};
    let reply = axiom.get_head(request).await.map_err(failed)?.into_inner();
    let head = reply.head.as_ref().context("an answer without a head")?;
    let signed = SignedText { head: head.try_into()?, signed: reply.signed };
    output::show(output, &signed, || signed.signed.clone())
}

/// Reads on from the end of the range, or of the log, until interrupted.
async fn follow(node: &Node, output: Output, which: Which<'_>, types: &[String]) -> Result<()> {
    let entry_types =
        types.iter().map(|name| parse_type(name).map(EntryType::code)).collect::<Result<Vec<_>>>()?;
    let mut head = node.axiom("system.axiom.get_head")?;
    let request = contracts::axiom::v1::GetHeadRequest {};
    let last =
        head.get_head(request).await.map_err(failed)?.into_inner().head.map_or(0, |head| head.sequence);
    let (mut next, to) = match which {
        Which::Range(range) => parse_range(range)?,
        Which::Last(number) => (last.saturating_add(1).saturating_sub(number), u64::MAX),
    };
    let mut axiom = node.axiom("system.axiom.range")?;
    while next <= to {
        let request = contracts::axiom::v1::RangeRequest { from: next, to, entry_types: entry_types.clone() };
        let mut messages = axiom.range(request).await.map_err(failed)?.into_inner();
        while let Some(message) = messages.message().await.map_err(failed)? {
            for entry in message.entries {
                next = entry.sequence.saturating_add(1);
                let shown = of_wire(&entry)?;
                output::show(output, &shown, || line(&shown))?;
            }
        }
        tokio::time::sleep(FOLLOW_PAUSE).await;
    }
    Ok(())
}

fn of_wire(entry: &contracts::axiom::v1::Entry) -> Result<Shown> {
    let payload = Payload::decode(entry.entry_type, &entry.payload);
    let head = payload.as_ref().ok().map(Payload::head);
    let name = EntryType::from_code(entry.entry_type).map_or("unknown", EntryType::name);
    Ok(Shown {
        sequence: Sequence(entry.sequence),
        entry_type: name.to_owned(),
        axiom_time_ns: entry.timestamp_ns,
        hash: base::Hash(contracts::convert::bytes("hash", &entry.hash)?),
        submitter: head.map(|head| head.submitter),
        authorization: head.and_then(|head| head.authorization),
        body: payload.as_ref().map_or(serde_json::Value::Null, body_json),
    })
}

/// The log to work on: the one named, or the node's own.
pub fn folders(layout: &Layout, named: Vec<PathBuf>) -> Vec<PathBuf> {
    if named.is_empty() { vec![layout.log()] } else { named }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_optional_ends() {
        assert_eq!(parse_range("7").unwrap(), (7, 7));
        assert_eq!(parse_range("3..").unwrap(), (3, u64::MAX));
        assert_eq!(parse_range("..9").unwrap(), (0, 9));
        assert!(parse_range("x").is_err());
    }

    #[test]
    fn an_unknown_type_lists_the_known_ones() {
        assert_eq!(parse_type("policydecision").unwrap(), EntryType::PolicyDecision);
        assert!(parse_type("nothing").unwrap_err().to_string().contains("KeyUsage"));
    }
}
