use base::{AxiomRef, Sequence};

use crate::{
    fault::{Cause, Fault, Part},
    segment::{Placed, SegmentReader, segment_first},
    source::LogSource,
    validate::ChainPoint,
};

/// What the caller knows beside the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions {
    /// An entry that the log must contain: a signed head, or the head file's.
    pub head: Option<AxiomRef>,
    /// The first segments are archived elsewhere: begin with the oldest one that is there. Otherwise with genesis.
    pub from_oldest: bool,
}

/// What a sound log holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub segments: u64,
    pub groups: u64,
    pub entries: u64,
    /// First entry that is there; 0 unless segments are archived.
    pub first: Sequence,
    pub last: Option<AxiomRef>,
}

/// Reads a whole log and believes nothing: every segment, group, entry and padding byte, and the head. Shows each
/// entry of a verified group to `visit` before it reads on. Stops at the first fault.
pub fn verify_log<S: LogSource>(
    source: &S,
    options: &VerifyOptions,
    visit: impl FnMut(&Placed<'_>),
) -> Result<Report, Fault> {
    let begin = if options.from_oldest { None } else { Some(ChainPoint::GENESIS) };
    walk(source, &sorted_names(source)?, begin, options, visit)
}

/// Reads a log from the segment on that holds `from`, and verifies it like `verify_log`; what lies before that segment is
/// taken from its header. For readers that know what came before by other means. Shows entries before `from` too.
pub fn read_log_from<S: LogSource>(
    source: &S,
    from: Sequence,
    visit: impl FnMut(&Placed<'_>),
) -> Result<Report, Fault> {
    let names = sorted_names(source)?;
    let behind = names.partition_point(|name| segment_first(name).is_some_and(|first| first <= from));
    let names = names.get(behind.saturating_sub(1)..).unwrap_or_default();
    walk(source, names, None, &VerifyOptions::default(), visit)
}

fn walk<S: LogSource>(
    source: &S,
    names: &[String],
    mut point: Option<ChainPoint>,
    options: &VerifyOptions,
    mut visit: impl FnMut(&Placed<'_>),
) -> Result<Report, Fault> {
    let mut report = Report::default();
    let mut head_seen = options.head.is_none();
    for (index, name) in names.iter().enumerate() {
        let last_segment = index.saturating_add(1) == names.len();
        let whole =
            |fault: Fault| Fault { may_be_torn_tail: fault.may_be_torn_tail && last_segment, ..fault };
        let segment = source.open(name).map_err(|error| Fault::read(name, 0, &error))?;
        let mut reader = SegmentReader::open(segment, name, point.as_ref())?;
        if index == 0 {
            report.first = reader.point().next_sequence;
        }
        let mut mismatch = None;
        while reader
            .next_group(|placed| {
                let head = options.head.filter(|head| head.sequence == placed.record.header.sequence);
                if let Some(head) = head {
                    head_seen = true;
                    mismatch = (head.hash != placed.hash).then_some((placed.offset, head));
                }
                report.entries = report.entries.saturating_add(1);
                visit(placed);
            })
            .map_err(whole)?
        {
            report.groups = report.groups.saturating_add(1);
            if let Some((offset, head)) = mismatch {
                return Err(Fault::new(name, offset, Part::Head, Cause::HeadMismatch { head }));
            }
        }
        report.segments = report.segments.saturating_add(1);
        point = Some(reader.point());
    }
    report.last = point.and_then(|point| point.last());
    let below_oldest = options.head.is_some_and(|head| head.sequence < report.first);
    match (options.head, report.last, names.last()) {
        (_, _, None) => Err(Fault::new("", 0, Part::Segment, Cause::Empty)),
        (_, None, Some(name)) => Err(Fault::new(name, 0, Part::Segment, Cause::Empty)),
        (Some(head), Some(last), Some(name)) if !head_seen && !below_oldest => {
            Err(Fault::new(name, 0, Part::Head, Cause::BelowHead { last: last.sequence, head }))
        }
        _ => Ok(report),
    }
}

/// Names of the segment files in the order of the log. A file that ends in `.seg` and is no segment is a fault.
fn sorted_names<S: LogSource>(source: &S) -> Result<Vec<String>, Fault> {
    let mut names = source.names().map_err(|error| Fault::read("", 0, &error))?;
    names.retain(|name| name.ends_with(".seg"));
    names.sort_unstable();
    match names.iter().find(|name| segment_first(name).is_none()) {
        Some(name) => Err(Fault::new(name, 0, Part::Segment, Cause::Name)),
        None => Ok(names),
    }
}
