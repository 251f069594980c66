//! Limits of disks, as the kernel wants them written: `io.max` and `io.weight` of v2, the `blkio` files of v1.
//!
//! v1 holds what is read and what is written past the page cache; writing that is kept for later is carried out by the
//! kernel, for nobody. v2 counts it where the file system knows whose it is.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};

use super::disks::{Disk, Disks};
use crate::features::{Controller, Hierarchy};
use crate::guard::{Enforced, EnforcedBy, LimitKind};
use crate::plan::{IO_WEIGHT_MAX, IoLimit, IoLimits};

/// The usual weight, of both kinds.
const WEIGHT_USUAL: u32 = 100;
/// Weights of the scheduler BFQ.
const BFQ_WEIGHT_MAX: u32 = 1000;

/// The four numbers of one disk: their names in v2, and the files of v1.
const KINDS: [(&str, &str); 4] = [
    ("rbps", "blkio.throttle.read_bps_device"),
    ("wbps", "blkio.throttle.write_bps_device"),
    ("riops", "blkio.throttle.read_iops_device"),
    ("wiops", "blkio.throttle.write_iops_device"),
];

type Numbers = [Option<u64>; 4];

fn numbers(limit: &IoLimit) -> Numbers {
    [
        limit.read_bytes_per_s,
        limit.write_bytes_per_s,
        limit.read_operations_per_s,
        limit.write_operations_per_s,
    ]
}

/// What came of the limits of one group.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) enforced: Vec<Enforced>,
    /// Why one place or disk is not limited, each, while others may be.
    pub(super) left_out: Vec<String>,
}

/// Writes them into a group. What cannot be held fails, unless it may be left out.
pub(super) fn apply(io: &IoLimits, controller: Option<&Controller>) -> io::Result<Applied> {
    let mut applied = Applied::default();
    if !io.max.is_empty() {
        let held = Disks::read().and_then(|disks| limit(io, controller, &disks, &mut applied.left_out));
        applied.enforced.push(held_by(LimitKind::Io, controller, io, held)?);
    }
    if let Some(weight) = io.weight {
        let held = weigh(weight, controller);
        applied.enforced.push(held_by(LimitKind::IoWeight, controller, io, held)?);
    }
    Ok(applied)
}

fn held_by(
    limit: LimitKind,
    controller: Option<&Controller>,
    io: &IoLimits,
    held: io::Result<()>,
) -> io::Result<Enforced> {
    let by = match (held, controller.map(|one| one.hierarchy)) {
        (Ok(()), Some(Hierarchy::V1)) => EnforcedBy::CgroupV1,
        (Ok(()), Some(Hierarchy::V2)) => EnforcedBy::CgroupV2,
        (Err(error), _) if !io.is_optional => return Err(error),
        _ => EnforcedBy::Nothing,
    };
    Ok(Enforced { limit, by })
}

/// Of those that may be left out one that cannot be limited takes no other with it; with none left, the last one's failure is that
/// of all.
fn limit(
    io: &IoLimits,
    controller: Option<&Controller>,
    disks: &Disks,
    left_out: &mut Vec<String>,
) -> io::Result<()> {
    let controller = there(controller)?;
    let mut last = Ok(());
    let mut give_up = |error: io::Error| {
        if !io.is_optional {
            return Err(error);
        }
        left_out.push(error.to_string());
        last = Err(error);
        Ok(())
    };
    let mut is_held = false;
    for (disk, numbers) in lowest(io, disks, &mut give_up)? {
        match set(controller, disk, numbers) {
            Ok(()) => is_held = true,
            Err(error) => give_up(error)?,
        }
    }
    if is_held { Ok(()) } else { last }
}

fn set(controller: &Controller, disk: Disk, numbers: Numbers) -> io::Result<()> {
    let set = KINDS.iter().zip(numbers).filter_map(|(kind, number)| Some((kind, number?)));
    match controller.hierarchy {
        Hierarchy::V1 => {
            for ((_, file), number) in set {
                write(controller, file, &format!("{disk} {number}"))?;
            }
            Ok(())
        }
        Hierarchy::V2 => {
            let line =
                set.fold(disk.to_string(), |line, ((name, _), number)| format!("{line} {name}={number}"));
            write(controller, "io.max", &line)
        }
    }
}

/// What holds of each disk, where one is meant more than once. `give_up` says whether it goes on without a place.
fn lowest(
    io: &IoLimits,
    disks: &Disks,
    give_up: &mut impl FnMut(io::Error) -> io::Result<()>,
) -> io::Result<BTreeMap<Disk, Numbers>> {
    let mut all = BTreeMap::<Disk, Numbers>::new();
    for limit in &io.max {
        let found = match disks.of(&limit.place) {
            Ok(found) => found,
            Err(error) => {
                give_up(error)?;
                continue;
            }
        };
        for disk in found {
            let held = all.entry(disk).or_default();
            for (held, given) in held.iter_mut().zip(numbers(limit)) {
                *held = [*held, given].into_iter().flatten().min();
            }
        }
    }
    Ok(all)
}

/// Which files there are depends on what the kernel was built with, and each has a reader of its own.
fn weigh(weight: u32, controller: Option<&Controller>) -> io::Result<()> {
    let controller = there(controller)?;
    let bfq = bfq_weight(weight).to_string();
    let files = match controller.hierarchy {
        Hierarchy::V1 => [("blkio.bfq.weight", bfq.clone()), ("blkio.weight", bfq)],
        Hierarchy::V2 => [("io.weight", format!("default {weight}")), ("io.bfq.weight", bfq)],
    };
    let written = files.iter().filter(|(file, text)| write(controller, file, text).is_ok()).count();
    if written == 0 {
        return Err(io::Error::other(
            "disks cannot be shared by weight: no scheduler that knows weights is there (BFQ, io.cost); limit bytes \
             or operations",
        ));
    }
    Ok(())
}

/// As systemd translates it, so that the weight of a unit means here what it means there.
fn bfq_weight(weight: u32) -> u32 {
    if weight <= WEIGHT_USUAL {
        return weight.max(1);
    }
    let above = (weight - WEIGHT_USUAL) * (BFQ_WEIGHT_MAX - WEIGHT_USUAL);
    WEIGHT_USUAL + above / (IO_WEIGHT_MAX - WEIGHT_USUAL)
}

fn there(controller: Option<&Controller>) -> io::Result<&Controller> {
    controller.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::Unsupported,
            "disks cannot be limited: no cgroup with the controller `io` (v2) or `blkio` (v1) is writable here; \
             under systemd, delegate it (Delegate=io)",
        )
    })
}

/// What is not there is not made.
fn write(controller: &Controller, file: &str, text: &str) -> io::Result<()> {
    let file = controller.own.join(file);
    let result = fs::OpenOptions::new().write(true).open(&file);
    result.and_then(|mut open| open.write_all(text.as_bytes())).map_err(|error| {
        io::Error::new(error.kind(), format!("writing {text:?} to {}: {error}", file.display()))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cgroup::disks::tests::machine;

    fn group(folder: &Path, hierarchy: Hierarchy, files: &[&str]) -> Controller {
        let own = folder.join("group");
        fs::create_dir_all(&own).unwrap();
        files.iter().for_each(|file| fs::write(own.join(file), "").unwrap());
        Controller { hierarchy, own }
    }

    fn max(place: &str, numbers: Numbers) -> IoLimit {
        let [read_bytes_per_s, write_bytes_per_s, read_operations_per_s, write_operations_per_s] = numbers;
        let place = place.to_owned();
        IoLimit { place, read_bytes_per_s, write_bytes_per_s, read_operations_per_s, write_operations_per_s }
    }

    fn limits(max: &[IoLimit]) -> IoLimits {
        IoLimits { max: max.to_vec(), ..IoLimits::default() }
    }

    fn read(controller: &Controller, file: &str) -> String {
        fs::read_to_string(controller.own.join(file)).unwrap()
    }

    #[test]
    fn each_hierarchy_gets_the_lines_that_it_takes() {
        let folder = tempfile::tempdir().unwrap();
        let disks = machine(folder.path());
        let io = limits(&[
            max("/data/base", [Some(1 << 20), None, Some(50), None]),
            max("/data", [Some(2 << 20), Some(3 << 20), None, Some(60)]),
        ]);
        let v2 = group(folder.path(), Hierarchy::V2, &["io.max"]);
        limit(&io, Some(&v2), &disks, &mut Vec::new()).unwrap();
        assert_eq!(read(&v2, "io.max"), "8:16 rbps=1048576 wbps=3145728 riops=50 wiops=60");
        let v1 = group(folder.path(), Hierarchy::V1, &KINDS.map(|(_, file)| file));
        limit(&io, Some(&v1), &disks, &mut Vec::new()).unwrap();
        let written = KINDS.map(|(_, file)| read(&v1, file));
        assert_eq!(written, ["8:16 1048576", "8:16 3145728", "8:16 50", "8:16 60"]);
    }

    #[test]
    fn what_is_not_limited_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let disks = machine(folder.path());
        let io = limits(&[max("/", [None, Some(4096), None, None])]);
        let v2 = group(folder.path(), Hierarchy::V2, &["io.max"]);
        limit(&io, Some(&v2), &disks, &mut Vec::new()).unwrap();
        assert_eq!(read(&v2, "io.max"), "8:0 wbps=4096");
        let v1 = group(folder.path(), Hierarchy::V1, &["blkio.throttle.write_bps_device"]);
        limit(&io, Some(&v1), &disks, &mut Vec::new()).unwrap();
    }

    #[test]
    fn all_means_each_disk_and_the_lowest_holds() {
        let folder = tempfile::tempdir().unwrap();
        let disks = machine(folder.path());
        let io = limits(&[
            max("all", [Some(9000), None, None, None]),
            max("/data", [Some(5000), Some(7000), None, None]),
        ]);
        let held = lowest(&io, &disks, &mut Err).unwrap();
        let held: Vec<_> = held.iter().map(|(disk, numbers)| (disk.to_string(), *numbers)).collect();
        let other = [Some(9000), None, None, None];
        let both = [Some(5000), Some(7000), None, None];
        assert_eq!(
            held,
            [("8:0", other), ("8:16", both), ("253:0", other)].map(|(disk, all)| (disk.to_owned(), all))
        );
    }

    #[test]
    fn weights_are_translated_and_need_somebody_who_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        for (given, bfq) in [(1, 1), (50, 50), (100, 100), (200, 109), (1000, 181), (10_000, 1000)] {
            assert_eq!(bfq_weight(given), bfq, "{given}");
        }
        let v2 = group(folder.path(), Hierarchy::V2, &["io.weight", "io.bfq.weight"]);
        weigh(200, Some(&v2)).unwrap();
        assert_eq!((read(&v2, "io.weight").as_str(), &*read(&v2, "io.bfq.weight")), ("default 200", "109"));
        let bare = tempfile::tempdir().unwrap();
        for hierarchy in [Hierarchy::V1, Hierarchy::V2] {
            let error = weigh(50, Some(&group(bare.path(), hierarchy, &[]))).unwrap_err().to_string();
            assert!(error.starts_with("disks cannot be shared by weight"), "{error}");
        }
        assert_eq!(fs::read_dir(bare.path().join("group")).unwrap().count(), 0, "a file was made");
    }

    #[test]
    fn what_nothing_holds_is_refused_unless_it_may_be_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut io = IoLimits { weight: Some(50), ..limits(&[max("all", [Some(4096), None, None, None])]) };
        let error = apply(&io, None).unwrap_err().to_string();
        assert!(error.contains("`io` (v2) or `blkio` (v1)"), "{error}");
        let bare = group(folder.path(), Hierarchy::V2, &[]);
        let disks = machine(folder.path());
        assert!(limit(&io, Some(&bare), &disks, &mut Vec::new()).is_err(), "there is no io.max");
        io.is_optional = true;
        let nothing =
            [LimitKind::Io, LimitKind::IoWeight].map(|limit| Enforced { limit, by: EnforcedBy::Nothing });
        assert_eq!(apply(&io, None).unwrap().enforced, nothing);
        assert!(limit(&io, Some(&bare), &disks, &mut Vec::new()).is_err(), "none of them is held");
        assert_eq!(apply(&IoLimits::default(), None).unwrap(), Applied::default());
    }

    #[test]
    fn one_disk_that_is_not_there_takes_the_limit_of_no_other_with_it_where_it_may_be_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let disks = machine(folder.path());
        let mut io = limits(&[
            max("/data/cache/x", [Some(1), None, None, None]),
            max("/strange", [Some(2), None, None, None]),
            max("/data", [Some(3), None, None, None]),
            max("/", [Some(4), None, None, None]),
        ]);
        let v1 = group(folder.path(), Hierarchy::V1, &["blkio.throttle.read_bps_device"]);
        let mut left_out = Vec::new();
        let error = limit(&io, Some(&v1), &disks, &mut left_out).unwrap_err().to_string();
        assert!(error.starts_with("/data/cache/x is on no disk"), "{error}");
        assert_eq!(left_out, Vec::<String>::new(), "refused as a whole");
        io.is_optional = true;
        limit(&io, Some(&v1), &disks, &mut left_out).unwrap();
        // A file that keeps what was written to it last: that of the disk with the highest number.
        assert_eq!(read(&v1, "blkio.throttle.read_bps_device"), "8:16 3");
        let [cache, strange] = left_out.as_slice() else { panic!("{left_out:?}") };
        assert!(cache.starts_with("/data/cache/x is on no disk"), "{cache}");
        assert!(strange.starts_with("/strange is on the device 8:99, which "), "{strange}");

        // The kernel takes one disk and not the other, which it does not know any more.
        io.max = vec![max("/", [Some(4), Some(5), None, None]), max("/data", [Some(3), None, None, None])];
        left_out.clear();
        limit(&io, Some(&v1), &disks, &mut left_out).unwrap();
        let [root] = left_out.as_slice() else { panic!("{left_out:?}") };
        assert!(root.starts_with("writing \"8:0 5\" to "), "{root}");
        // Nothing left at all is not the same as something.
        io.max.pop();
        assert!(limit(&io, Some(&v1), &disks, &mut left_out).is_err());
    }
}
