//! `bailiwick log archive` and `log restore`: whole segments below a cosigned checkpoint, out of the log and back
//! (decision 0025).
//!
//! Nothing is taken out before its copy is durable and verified, and it is axiom that takes it: this command copies, asks
//! for the decision, and waits for the receipt.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use axiom::store::LOCK_FILE;
use base::{AxiomRef, Sequence, layout::Layout};
use chain::{
    ChainPoint, EntryType, LogFolder, LogSource, SegmentReader, VerifyOptions,
    log_edge::{COSIGNED_BYTES_MAX, EDGE_FILE, LogEdge, PLACE_BYTES_MAX, cosigned},
    payload::{Payload, ReceiptStatus},
    segment_first,
    tree::{Edge, TreeHash},
    verify_log,
};
use contracts::{axiom::v1::RangeRequest, policy::v1::ArchiveLogRequest};
use durable::{Disk, DiskFile, RealDisk};
use serde::Serialize;

use super::{checkpoint, log_files::edge_of};
use crate::{
    args::{ArchiveArgs, Output},
    exit::{DAMAGED, Failure, REFUSED, USAGE},
    node::{Node, failed, runtime},
    output,
};

/// Bytes copied at once.
const COPY_BYTES: usize = 1024 * 1024;
/// How long axiom may take: it reads all that is archived once more, at half a core.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(600);
const RECEIPT_PAUSE: Duration = Duration::from_millis(200);
const DAY_S: u64 = 24 * 60 * 60;

/// Segments that can be taken, oldest first.
struct Plan {
    begin: ChainPoint,
    last: AxiomRef,
    names: Vec<String>,
    bytes: u64,
}

#[derive(Serialize)]
struct Archived<'a> {
    /// False if this was only asked.
    done: bool,
    from: Sequence,
    last: AxiomRef,
    segments: usize,
    bytes: u64,
    place: Option<&'a Path>,
    /// Entries of the checkpoint below which they lie.
    checkpoint: u64,
    /// The entry that decided it.
    entry: Option<AxiomRef>,
}

pub fn archive(layout: &Layout, output: Output, args: &ArchiveArgs) -> Result<()> {
    let folder = layout.log();
    let edge = edge_of(&folder)?;
    let text = checkpoint::read_text(&args.checkpoint, COSIGNED_BYTES_MAX)?;
    let signed = cosigned(&text, &checkpoint::key_of(&folder)?, &args.witness)
        .map_err(|error| Failure::refused(&format_args!("{}: {error}", args.checkpoint.display())))?;
    let plan = plan(&folder, edge.as_ref(), signed.size, args)?;
    let place = args.to.as_deref().map(std::path::absolute).transpose()?;
    let mut archived = Archived {
        done: false,
        from: plan.begin.next_sequence,
        last: plan.last,
        segments: plan.names.len(),
        bytes: plan.bytes,
        place: place.as_deref(),
        checkpoint: signed.size,
        entry: None,
    };
    if !args.dry_run {
        let to = place.as_deref().context("where to? `log archive --to DIR`")?;
        let named = to.to_str().filter(|name| name.len() <= PLACE_BYTES_MAX);
        let named =
            named.with_context(|| format!("{} is no UTF-8 of {PLACE_BYTES_MAX} bytes", to.display()))?;
        copy(&folder, to, &plan.names)?;
        verify_copy(to, &plan)?;
        let request = ArchiveLogRequest {
            from: plan.begin.next_sequence.0,
            last: Some(plan.last.into()),
            segments: plan.names.len() as u64,
            checkpoint: text,
            witnesses: args.witness.clone(),
            place: named.to_owned(),
        };
        let node = Node::find(layout.clone())?;
        archived.entry = Some(runtime()?.block_on(decide(&node, request))?);
        archived.done = true;
    }
    output::show(output, &archived, || archived.text())
}

impl Archived<'_> {
    fn text(&self) -> String {
        let Self { from, last, segments, bytes, checkpoint, .. } = self;
        let what = format!("entries {from} to {} in {segments} segments, {bytes} bytes", last.sequence);
        let below = format!("below the cosigned checkpoint of {checkpoint} entries");
        match (self.place, self.done) {
            (Some(place), true) => format!(
                "{}: {what}, {below}; now in {}\nkeep it: a start without its snapshot, and every change of the \
                 build that folds anew, needs it back (`log restore`)\n",
                output::good("archived"),
                place.display()
            ),
            _ => format!("would archive {what}, {below}\n"),
        }
    }
}

/// Whole segments that are below the checkpoint, and as old as was asked; never the last one.
fn plan(folder: &Path, edge: Option<&LogEdge>, size: u64, args: &ArchiveArgs) -> Result<Plan> {
    let begin = edge.map_or(ChainPoint::GENESIS, LogEdge::point);
    let source = LogFolder::new(folder);
    let mut names = source.names().with_context(|| format!("reading {}", folder.display()))?;
    names.retain(|name| segment_first(name).is_some_and(|first| first >= begin.next_sequence));
    names.sort_unstable();
    let below = size.min(args.before.unwrap_or(u64::MAX));
    let cutoff_ns = args.keep_days.map(cutoff_ns).transpose()?;
    let mut found: Option<(usize, ChainPoint)> = None;
    for (at, name) in names.iter().enumerate().skip(1) {
        let mut reader =
            SegmentReader::open(source.open(name)?, name, None).map_err(|fault| Failure::damaged(&fault))?;
        let point = reader.header().point();
        let mut time = None;
        if cutoff_ns.is_some() {
            let group = reader.next_group(|placed| {
                time.get_or_insert(placed.record.header.timestamp.0);
            });
            group.map_err(|fault| Failure::damaged(&fault))?;
        }
        // All that lies before a segment is older than its first entry.
        let is_old = cutoff_ns.is_none_or(|cutoff| time.is_some_and(|time| time <= cutoff));
        if point.next_sequence.0 > below || !is_old {
            break;
        }
        found = Some((at, point));
    }
    let Some((at, end)) = found else {
        let text = format!(
            "nothing to archive: no whole segment of {} lies below the checkpoint of {size} entries and is as old as was asked",
            folder.display()
        );
        return Err(Failure::new(REFUSED, text).into());
    };
    names.truncate(at);
    let last = end.last().context("a segment that follows nothing")?;
    let sizes = names.iter().map(|name| Ok(std::fs::metadata(folder.join(name))?.len()));
    let bytes = sizes.collect::<io::Result<Vec<u64>>>()?.iter().sum();
    Ok(Plan { begin, last, names, bytes })
}

fn cutoff_ns(days: u64) -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    let kept = Duration::from_secs(days.saturating_mul(DAY_S));
    Ok(u64::try_from(now.saturating_sub(kept).as_nanos()).unwrap_or(u64::MAX))
}

/// Whether two paths lead to one and the same.
fn is_one(one: &std::fs::Metadata, other: &std::fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Each file whole or not at all, durably. One that is there already must be the same, and another file: what is removed
/// from the log must not be the copy.
fn copy(from: &Path, to: &Path, names: &[String]) -> Result<()> {
    let context = || format!("copying into {}", to.display());
    let disk = RealDisk::open(to).with_context(context)?;
    if is_one(&std::fs::metadata(from)?, &std::fs::metadata(to)?) {
        let text = format!("{} is the log's own folder; choose another", to.display());
        return Err(Failure::new(USAGE, text).into());
    }
    for name in names {
        let (own, there) = (from.join(name), to.join(name));
        if let Ok(found) = std::fs::symlink_metadata(&there) {
            let why = if !found.is_file() || is_one(&std::fs::metadata(&own)?, &found) {
                "is the log's own file, or no file"
            } else if found.nlink() > 1 {
                "has other names (hard links), by which it can be changed"
            } else {
                continue;
            };
            let text = format!("{} {why}; choose another folder", there.display());
            return Err(Failure::new(USAGE, text).into());
        }
    }
    for name in names {
        let own = from.join(name);
        copy_one(&own, &disk, name).with_context(context)?;
    }
    disk.sync_dir("").with_context(context)?;
    // The folder itself may be new.
    if let Some(parent) = to.parent() {
        File::open(parent).and_then(|parent| parent.sync_all()).with_context(context)?;
    }
    Ok(())
}

/// What is read of the copy from here on comes from the disk, not out of the memory that was written from.
fn copy_one(from: &Path, disk: &RealDisk, name: &str) -> Result<()> {
    use chain::ReadAt;
    let source = File::open(from).with_context(|| format!("opening {}", from.display()))?;
    let size = source.size_bytes()?;
    if let Ok(there) = disk.open(name) {
        return match is_same(&source, &there, size)? {
            true => {
                there.sync_data()?;
                Ok(there.forget_cached()?)
            }
            false => {
                let text = format!("{name} is there already with other bytes; choose another folder");
                Err(Failure::new(USAGE, text).into())
            }
        };
    }
    let new = format!("{name}.new");
    // What an earlier run left half written.
    let file = match disk.create(&new) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(&new)?;
            disk.create(&new)?
        }
        other => other?,
    };
    each_step(size, |at, buffer| {
        source.read_exact_at(at, buffer)?;
        Ok(file.write_at(at, buffer)?)
    })?;
    file.sync_data()?;
    file.forget_cached()?;
    Ok(disk.rename(&new, name)?)
}

fn is_same(source: &File, there: &impl DiskFile, size: u64) -> Result<bool> {
    use chain::ReadAt;
    let mut same = there.size_bytes()? == size;
    if same {
        let mut other = vec![0; COPY_BYTES];
        each_step(size, |at, buffer| {
            let other = other.get_mut(..buffer.len()).unwrap_or_default();
            source.read_exact_at(at, buffer)?;
            there.read_at(at, other)?;
            same &= buffer == other;
            Ok(())
        })?;
    }
    Ok(same)
}

fn each_step(size: u64, mut step: impl FnMut(u64, &mut [u8]) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0_u64;
    while at < size {
        let bytes = usize::try_from(size.saturating_sub(at)).unwrap_or(COPY_BYTES).min(COPY_BYTES);
        step(at, buffer.get_mut(..bytes).unwrap_or_default())?;
        at = at.saturating_add(bytes as u64);
    }
    Ok(())
}

/// Some segments of a folder, as a log of their own.
struct Picked<'n> {
    folder: LogFolder,
    names: &'n [String],
}

impl LogSource for Picked<'_> {
    type Segment = File;

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.names.to_vec())
    }

    fn open(&self, name: &str) -> io::Result<File> {
        self.folder.open(name)
    }
}

/// What was written is read again, whole, and must lead to the entry before the first one that stays.
fn verify_copy(to: &Path, plan: &Plan) -> Result<()> {
    let copy = Picked { folder: LogFolder::new(to), names: &plan.names };
    let options = VerifyOptions::from_edge(plan.begin);
    let report = verify_log(&copy, &options, |_| {}).map_err(|fault| Failure::damaged(&fault))?;
    if report.last != Some(plan.last) {
        let text = format!("the copy in {} does not end with entry {}", to.display(), plan.last);
        return Err(Failure::new(DAMAGED, text).into());
    }
    Ok(())
}

/// Asks for the decision, and waits until axiom has carried it out or given it up.
async fn decide(node: &Node, request: ArchiveLogRequest) -> Result<AxiomRef> {
    let mut policy = node.policy("system.policy.archive_log").await?;
    let reply = policy.archive_log(request).await.map_err(failed)?.into_inner();
    let entry: AxiomRef = reply.entry.as_ref().context("an answer without an entry")?.try_into()?;
    let until = Instant::now() + RECEIPT_TIMEOUT;
    loop {
        match receipt(node, entry).await? {
            Some(ReceiptStatus::Success) => return Ok(entry),
            Some(_) => {
                let text = format!(
                    "entry {entry} allows it, but nothing was taken out of the log; `bailiwick service logs axiom` says why, and the \
                     copies stay where they are"
                );
                return Err(Failure::new(1, text).into());
            }
            None if Instant::now() >= until => bail!(
                "entry {entry} allows it; axiom has not closed it within {} s, and goes on",
                RECEIPT_TIMEOUT.as_secs()
            ),
            None => tokio::time::sleep(RECEIPT_PAUSE).await,
        }
    }
}

async fn receipt(node: &Node, of: AxiomRef) -> Result<Option<ReceiptStatus>> {
    let mut axiom = node.axiom("system.axiom.range")?;
    let entry_types = vec![EntryType::Receipt.code()];
    let request = RangeRequest { from: of.sequence.0, to: u64::MAX, entry_types };
    let mut messages = axiom.range(request).await.map_err(failed)?.into_inner();
    let mut found = None;
    while let Some(message) = messages.message().await.map_err(failed)? {
        for entry in message.entries {
            if let Payload::Receipt(receipt) = Payload::decode(entry.entry_type, &entry.payload)?
                && receipt.body.axiom_entry == of
            {
                found = Some(receipt.body.status);
            }
        }
    }
    Ok(found)
}

#[derive(Serialize)]
struct Restored {
    from: Sequence,
    last: AxiomRef,
    segments: usize,
}

/// Puts back what was archived, on a node that is down. The copies stay where they are.
pub fn restore(layout: &Layout, output: Output, places: &[PathBuf]) -> Result<()> {
    let folder = layout.log();
    let state = layout.service_state("axiom");
    // First: while axiom has it, the edge can move on.
    let _lock = RealDisk::open(&state)?
        .lock(LOCK_FILE)
        .context("the log is in use: stop the node first (`bailiwick down`)")?;
    let Some(edge) = edge_of(&folder)? else {
        bail!("nothing is archived: {} begins with genesis", folder.display());
    };
    let begin = edge.point().next_sequence;
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for place in places {
        let names = LogFolder::new(place).names().with_context(|| format!("reading {}", place.display()))?;
        let is_archived = |name: &String| segment_first(name).is_some_and(|first| first < begin);
        for name in names.into_iter().filter(is_archived) {
            if !found.iter().any(|(known, _)| *known == name) {
                found.push((name, place.clone()));
            }
        }
    }
    found.sort_unstable();
    check_archive(&found, &edge)?;
    let disk = RealDisk::open(&folder)?;
    let owner = std::fs::metadata(folder.join(EDGE_FILE))?;
    // Newest first: where it is cut short, the log still begins at its edge, with segments beside it that nobody reads.
    for (name, place) in found.iter().rev() {
        if segment_first(name) == Some(Sequence(0)) {
            disk.sync_dir("")?;
        }
        copy_one(&place.join(name), &disk, name).with_context(|| {
            format!(
                "restoring was cut short at {name}, copied into {}; run the command again",
                folder.display()
            )
        })?;
        std::os::unix::fs::chown(folder.join(name), Some(owner.uid()), Some(owner.gid()))?;
    }
    disk.sync_dir("")?;
    // From here on the log begins with genesis again.
    disk.remove(EDGE_FILE)?;
    disk.sync_dir("")?;
    let restored = Restored { from: Sequence(0), last: edge.last, segments: found.len() };
    output::show(output, &restored, || {
        let Restored { last, segments, .. } = &restored;
        format!("{}: entries 0 to {} in {segments} segments\n", output::good("restored"), last.sequence)
    })
}

/// From genesis to the edge, every byte: what is put back is what was taken.
fn check_archive(found: &[(String, PathBuf)], edge: &LogEdge) -> Result<()> {
    let source = Places(found);
    let mut tree = Edge::default();
    let report = verify_log(&source, &VerifyOptions::default(), |placed| {
        let header = placed.record.header.encode();
        tree.push(TreeHash::leaf_of(&[&header, placed.record.payload]), |_, _| {});
    })
    .map_err(|fault| Failure::new(DAMAGED, format!("the archive is not whole: {fault}")))?;
    if report.last != Some(edge.last) || Some(&tree) != edge.tree().as_ref() {
        let what = format!("the archive does not lead to entry {}, with which the log goes on", edge.last);
        return Err(Failure::refused(&what).into());
    }
    Ok(())
}

struct Places<'f>(&'f [(String, PathBuf)]);

impl LogSource for Places<'_> {
    type Segment = File;

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.iter().map(|(name, _)| name.clone()).collect())
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let found = self.0.iter().find(|(known, _)| known == name);
        File::open(found.ok_or(io::ErrorKind::NotFound)?.1.join(name))
    }
}

#[cfg(test)]
mod tests;
