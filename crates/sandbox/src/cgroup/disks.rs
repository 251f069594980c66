//! Which disks a path means. Limits are of whole disks: the kernel takes no partition.
//!
//! Nothing is looked up in the file system that a path leads through: it may be one that answers late or never, and the
//! keeper asks. The kernel's list of mounts says what stands where, `/sys` which disk a partition is of.

use std::fs;
use std::io;
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::plan::ALL_DISKS;

/// Disks that stand for memory: nobody else waits for them.
const IN_MEMORY: [&str; 2] = ["ram", "zram"];
/// Where device nodes are, which are safe to look at.
const NODES: &str = "/dev/";
/// Below it, and written by programs.
const OF_ALL: [&str; 2] = ["/dev/shm/", "/dev/mqueue/"];

/// A block device by number, as the kernel writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Disk {
    pub(super) major: u32,
    pub(super) minor: u32,
}

impl std::fmt::Display for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl Disk {
    fn parse(text: &str) -> Option<Disk> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Disk { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    fn of_node(path: &str) -> Option<Disk> {
        // The source of a mount is what whoever mounted it wrote: a path elsewhere may answer late or never.
        let is_of_the_kernel =
            path.starts_with(NODES) && !OF_ALL.iter().any(|folder| path.starts_with(folder));
        let metadata = fs::metadata(is_of_the_kernel.then_some(path)?)
            .ok()
            .filter(|metadata| metadata.file_type().is_block_device())?;
        let number = metadata.st_rdev();
        Some(Disk { major: rustix::fs::major(number), minor: rustix::fs::minor(number) })
    }
}

/// What the kernel tells of mounts and disks.
pub(super) struct Disks {
    mounts: String,
    sys: PathBuf,
}

impl Disks {
    pub(super) fn read() -> io::Result<Disks> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Disks { mounts, sys: PathBuf::from("/sys") })
    }

    /// The disks of a place, lowest number first.
    pub(super) fn of(&self, place: &str) -> io::Result<Vec<Disk>> {
        if place == ALL_DISKS {
            return self.all();
        }
        let node = place.starts_with(NODES).then(|| Disk::of_node(place)).flatten();
        let device = match node {
            Some(device) => device,
            None => self.below(place)?,
        };
        let disk = self.whole(device).ok_or_else(|| {
            let sys = self.sys.display();
            io::Error::other(format!("{place} is on the device {device}, which {sys} does not know"))
        })?;
        Ok(vec![disk])
    }

    /// Every disk that has something on it.
    fn all(&self) -> io::Result<Vec<Disk>> {
        let mut disks = Vec::new();
        for entry in fs::read_dir(self.sys.join("block"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = name.trim_end_matches(|c: char| c.is_ascii_digit());
            let is_empty = number(&entry.path().join("size")) == Some(0);
            if !IN_MEMORY.contains(&kind)
                && !is_empty
                && let Ok(text) = fs::read_to_string(entry.path().join("dev"))
            {
                disks.extend(Disk::parse(&text));
            }
        }
        if disks.is_empty() {
            return Err(io::Error::other(format!("{} lists no disk", self.sys.join("block").display())));
        }
        disks.sort_unstable();
        Ok(disks)
    }

    /// The device of the mount on which a path lies.
    fn below(&self, place: &str) -> io::Result<Disk> {
        let mounts = self.mounts.lines().filter_map(Mount::parse).filter(|mount| mount.shows(place));
        // Of two at one point the later one hides the earlier.
        let mount =
            mounts.reduce(|best, next| if next.point.len() >= best.point.len() { next } else { best });
        let mount = mount.ok_or_else(|| io::Error::other(format!("nothing is mounted above {place}")))?;
        // A file system of several disks has a number of its own, and names the first.
        let device = if mount.device.major == 0 { Disk::of_node(&mount.source) } else { Some(mount.device) };
        device.ok_or_else(|| {
            let Mount { kind, point, .. } = mount;
            io::Error::other(format!(
                "{place} is on no disk: {kind} is mounted at {point}; name the disk, or `all`"
            ))
        })
    }

    /// Of a partition, the disk.
    fn whole(&self, device: Disk) -> Option<Disk> {
        let folder = fs::canonicalize(self.sys.join("dev/block").join(device.to_string())).ok()?;
        let disk = if folder.join("partition").exists() { folder.parent()?.to_path_buf() } else { folder };
        Disk::parse(&fs::read_to_string(disk.join("dev")).ok()?)
    }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// A line of `mountinfo`.
struct Mount {
    device: Disk,
    point: String,
    kind: String,
    source: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Mount> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(2);
        let (device, point) = (Disk::parse(left.next()?)?, plain(left.nth(1)?));
        let mut right = right.split(' ');
        Some(Mount { device, point, kind: right.next()?.to_owned(), source: plain(right.next()?) })
    }

    fn shows(&self, place: &str) -> bool {
        let rest = place.strip_prefix(self.point.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// The kernel writes blanks and backslashes of a path as three octal digits.
fn plain(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (code, sign)| text.replace(code, sign))
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const MOUNTS: &str = "\
22 1 8:2 / / rw - ext4 /dev/sda2 rw
23 22 0:31 / /proc rw - proc proc rw
24 22 8:17 / /data rw - xfs /dev/sdb1 rw
25 24 0:40 / /data/cache rw - tmpfs tmpfs rw
26 22 0:41 /sub /with\\040blank rw - btrfs /dev/null rw
27 22 253:0 / /secret rw - ext4 /dev/mapper/secret rw
28 22 8:1 / /twice rw - ext4 /dev/sda1 rw
29 22 8:17 / /twice rw - xfs /dev/sdb1 rw
30 22 8:99 / /strange rw - ext4 /dev/sdz rw
";

    /// Two disks with partitions, a mapped one, one of memory and one without content, as `/sys` shows them.
    pub(in super::super) fn machine(folder: &Path) -> Disks {
        let sys = folder.join("sys");
        let device = |path: &str, number: &str, size: &str, is_partition: bool| {
            let at = sys.join("devices").join(path);
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join("dev"), format!("{number}\n")).unwrap();
            fs::write(at.join("size"), format!("{size}\n")).unwrap();
            if is_partition {
                fs::write(at.join("partition"), "1\n").unwrap();
            } else {
                symlink(&at, sys.join("block").join(path)).unwrap();
            }
            symlink(&at, sys.join("dev/block").join(number)).unwrap();
        };
        for folder in ["dev/block", "block"] {
            fs::create_dir_all(sys.join(folder)).unwrap();
        }
        device("sda", "8:0", "100", false);
        device("sda/sda1", "8:1", "10", true);
        device("sda/sda2", "8:2", "90", true);
        device("sdb", "8:16", "100", false);
        device("sdb/sdb1", "8:17", "100", true);
        device("dm-0", "253:0", "100", false);
        device("zram0", "254:0", "100", false);
        device("loop0", "7:0", "0", false);
        Disks { mounts: MOUNTS.to_owned(), sys }
    }

    #[test]
    fn a_path_is_on_the_disk_of_its_deepest_mount() {
        let folder = tempfile::tempdir().unwrap();
        let disks = machine(folder.path());
        let of = |place: &str| match disks.of(place) {
            Ok(found) => found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        };
        let on_none = "is on no disk: tmpfs is mounted at /data/cache; name the disk, or `all`";
        for (place, wanted) in [
            ("/", "8:0"),
            ("/var/lib/x", "8:0"),
            ("/data", "8:16"),
            ("/data/base", "8:16"),
            // Not below it, though it begins with its letters.
            ("/database", "8:0"),
            ("/twice/x", "8:16"),
            ("/secret", "253:0"),
            ("all", "8:0 8:16 253:0"),
            ("/data/cache/x", &format!("/data/cache/x {on_none}")),
        ] {
            assert_eq!(of(place), wanted, "{place}");
        }
        assert!(of("/with blank/x").contains("btrfs is mounted at /with blank;"), "{}", of("/with blank/x"));
        assert!(of("/strange").starts_with("/strange is on the device 8:99, which "), "{}", of("/strange"));
    }
}
