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
    /// Begin here, at the edge of a log whose first segments are archived. Segments that lie wholly before it are what an
    /// archiving that was cut short has left, and are not read.
    pub begin: Option<ChainPoint>,
}

impl VerifyOptions {
    /// From this place on.
    #[must_use]
    pub fn from_edge(begin: ChainPoint) -> Self {
        Self { begin: Some(begin), ..Self::default() }
    }

    const fn point(&self) -> Option<ChainPoint> {
        match (self.from_oldest, self.begin) {
            (true, _) => None,
            (false, None) => Some(ChainPoint::GENESIS),
            (false, begin) => begin,
        }
    }
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
    walk(source, &names_from(source, options)?, options.point(), options, visit)
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

/// The same as `verify_log`, with segments side by side in so many threads. What `map` makes of the entries is held for
/// as many segments at once and shown to `fold` in the order of the log, up to the first fault.
pub fn verify_in_parallel<S: LogSource + Sync, T: Send>(
    source: &S,
    options: &VerifyOptions,
    threads: usize,
    map: impl Fn(&Placed<'_>) -> T + Sync,
    mut fold: impl FnMut(T),
) -> Result<Report, Fault> {
    let names = names_from(source, options)?;
    let mut walk = Walk::new(options, names.len());
    for some in names.chunks(threads.max(1)) {
        let read = |name: &str| {
            let mut mapped = Vec::new();
            let (one, fault) = match read_segment(source, name, None, options.head, |p| mapped.push(map(p))) {
                Ok(one) => (Some(one), None),
                Err(fault) => (None, Some(fault)),
            };
            (one, fault, mapped)
        };
        let read_all = std::thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|name| scope.spawn(|| read(name))).collect();
            threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        for (name, joined) in some.iter().zip(read_all) {
            // A thread that panicked has shown a defect of this code, not of the log; nothing is vouched for.
            let Ok((one, fault, mapped)) = joined else {
                return Err(Fault::new(name, 0, Part::Segment, Cause::Empty));
            };
            walk.check_begin(source, name)?;
            mapped.into_iter().for_each(&mut fold);
            match (one, fault) {
                (Some(one), _) => walk.take(one),
                (None, Some(fault)) => return Err(walk.placed(fault)),
                (None, None) => {}
            }
        }
    }
    walk.end(names.last())
}

fn walk<S: LogSource>(
    source: &S,
    names: &[String],
    begin: Option<ChainPoint>,
    options: &VerifyOptions,
    mut visit: impl FnMut(&Placed<'_>),
) -> Result<Report, Fault> {
    let mut walk = Walk { point: begin, ..Walk::new(options, names.len()) };
    for name in names {
        let point = walk.point;
        let one = read_segment(source, name, point.as_ref(), options.head, &mut visit);
        walk.take(one.map_err(|fault| walk.placed(fault))?);
    }
    walk.end(names.last())
}

/// One segment that holds.
struct One {
    begin: ChainPoint,
    groups: u64,
    entries: u64,
    end: ChainPoint,
    head_seen: bool,
}

/// Reads a segment to its end.
fn read_segment<S: LogSource>(
    source: &S,
    name: &str,
    expected: Option<&ChainPoint>,
    head: Option<AxiomRef>,
    mut visit: impl FnMut(&Placed<'_>),
) -> Result<One, Fault> {
    let segment = source.open(name).map_err(|error| Fault::read(name, 0, &error))?;
    let mut reader = SegmentReader::open(segment, name, expected)?;
    let begin = reader.point();
    let (mut groups, mut entries, mut head_seen) = (0_u64, 0_u64, false);
    let mut mismatch = None;
    while reader.next_group(|placed| {
        let head = head.filter(|head| head.sequence == placed.record.header.sequence);
        if let Some(head) = head {
            head_seen = true;
            mismatch = (head.hash != placed.hash).then_some((placed.offset, head));
        }
        entries = entries.saturating_add(1);
        visit(placed);
    })? {
        groups = groups.saturating_add(1);
        if let Some((offset, head)) = mismatch {
            return Err(Fault::new(name, offset, Part::Head, Cause::HeadMismatch { head }));
        }
    }
    Ok(One { begin, groups, entries, end: reader.point(), head_seen })
}

/// Segments that were read, one after the other.
struct Walk {
    report: Report,
    head: Option<AxiomRef>,
    head_seen: bool,
    /// Where the first segment that was read begins.
    begin: Option<ChainPoint>,
    /// Where the next segment must begin; none if the first one says.
    point: Option<ChainPoint>,
    segments: u64,
}

impl Walk {
    const fn new(options: &VerifyOptions, segments: usize) -> Self {
        let point = options.point();
        let report = Report { segments: 0, groups: 0, entries: 0, first: Sequence(0), last: None };
        Self { report, head: options.head, head_seen: false, begin: None, point, segments: segments as u64 }
    }

    /// That a segment, which was read alone, follows on those before it.
    fn check_begin<S: LogSource>(&self, source: &S, name: &str) -> Result<(), Fault> {
        let segment = source.open(name).map_err(|error| Fault::read(name, 0, &error))?;
        SegmentReader::open(segment, name, self.point.as_ref()).map(|_| ())
    }

    /// Only at the very end can a write have been torn.
    fn placed(&self, fault: Fault) -> Fault {
        let last_segment = self.report.segments.saturating_add(1) == self.segments;
        Fault { may_be_torn_tail: fault.may_be_torn_tail && last_segment, ..fault }
    }

    const fn take(&mut self, one: One) {
        if self.report.segments == 0 {
            self.report.first = one.begin.next_sequence;
            self.begin = Some(one.begin);
        }
        self.report.segments = self.report.segments.saturating_add(1);
        self.report.groups = self.report.groups.saturating_add(one.groups);
        self.report.entries = self.report.entries.saturating_add(one.entries);
        self.head_seen |= one.head_seen;
        self.point = Some(one.end);
    }

    fn end(mut self, last_name: Option<&String>) -> Result<Report, Fault> {
        self.report.last = self.point.and_then(|point| point.last());
        let Some(name) = last_name else { return Err(Fault::new("", 0, Part::Segment, Cause::Empty)) };
        let Some(last) = self.report.last else {
            return Err(Fault::new(name, 0, Part::Segment, Cause::Empty));
        };
        match self.head.filter(|_| !self.head_seen).map(|head| self.head_fault(head, last)) {
            Some(Some(cause)) => Err(Fault::new(name, 0, Part::Head, cause)),
            _ => Ok(self.report),
        }
    }

    /// Why a log in which the head was not seen does not hold it. Of what lies before the first segment one entry is known:
    /// the one that the chain goes on from.
    fn head_fault(&self, head: AxiomRef, last: AxiomRef) -> Option<Cause> {
        let first = self.report.first;
        let before = self.begin.and_then(|begin| begin.last());
        match before.filter(|before| before.sequence == head.sequence) {
            Some(before) if before == head => None,
            Some(_) => Some(Cause::HeadMismatch { head }),
            None if head.sequence < first => Some(Cause::BeforeFirst { first, head }),
            None => Some(Cause::BelowHead { last: last.sequence, head }),
        }
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

/// Those from where the reading begins on.
fn names_from<S: LogSource>(source: &S, options: &VerifyOptions) -> Result<Vec<String>, Fault> {
    let mut names = sorted_names(source)?;
    if let Some(begin) = options.begin {
        names.retain(|name| segment_first(name).is_some_and(|first| first >= begin.next_sequence));
    }
    Ok(names)
}
