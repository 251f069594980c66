//! `bailiwick log`: everything here but `--follow` and `head` works on files alone, with no service running.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base::{AxiomRef, Sequence, layout::Layout};
use chain::{EntryHeader, EntryType, payload::Payload, verify_log};
use serde::Serialize;

use super::log_files::LogFiles;
pub use audit::audit;
pub use verify::{Against, verify};

mod audit;
mod verify;

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

/// Threads that read a log at once: each holds a segment's hashes.
const THREADS_MAX: usize = 8;

/// As many as there are cores, within reason.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(THREADS_MAX)
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
    let open = || match which {
        Which::Range(_) => LogFiles::reaching(folder, &[], Sequence(from)),
        Which::Last(_) => LogFiles::open(folder, &[]),
    };
    let (files, outcome) = LogFiles::reading(open, |files| {
        shown.clear();
        verify_log(files, &files.options(), |placed| {
            let header = &placed.record.header;
            let wanted =
                types.is_empty() || types.iter().any(|known| known.code() == header.entry_type.code());
            if !wanted || !(from..=to).contains(&header.sequence.0) {
                return;
            }
            shown.push_back(describe(header, placed.record.payload, placed.hash));
            if shown.len() as u64 > last {
                shown.pop_front();
            }
        })
    })?;
    let shown: Vec<Shown> = shown.into();
    output::show(output, &shown, || shown.iter().map(line).collect())?;
    match outcome {
        // The end of a log that is being written may look torn; everything above it was shown.
        Err(fault) if !fault.may_be_torn_tail => Err(files.fault(&fault).into()),
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
    .map_err(|fault| files.fault(&fault))?;
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
