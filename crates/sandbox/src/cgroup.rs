//! Control groups, hierarchy by hierarchy: a controller may be on v1, on v2 or nowhere, and each is asked for itself.
//!
//! Everything is made below the caller's own group and nothing else is touched. A group is supervised through v2 where
//! it can be made there (`cgroup.kill`, `cgroup.freeze`, birth inside it), and limited where the controller is.
//!
//! A child is born inside its v2 group and joins its v1 groups by itself. To move it from outside, the kernel would
//! hold up every fork and exit of the machine, and before that wait until all processors are known to have noticed: 10
//! to 20 ms, each time.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::features::{Controller, Features, Hierarchy};
use crate::guard::{Enforced, EnforcedBy, LimitKind};
use crate::plan::Limits;

mod disks;
mod io_limits;

/// The usual period of a cpu quota.
const CPU_PERIOD_US: u64 = 100_000;
/// Rounds of killing a tree that keeps forking, where it can be neither frozen nor killed at once. Each round ends
/// everything that was there when it began.
const KILL_ROUNDS_MAX: usize = 32;
/// The group that the launching process itself moves to where v2 wants groups with children to be empty.
const LEAF: &str = "keeper";

/// Where groups can be made, as found in `/proc/self`.
#[derive(Debug, Default)]
pub(crate) struct Detected {
    pub(crate) memory: Option<Controller>,
    pub(crate) pids: Option<Controller>,
    pub(crate) cpu: Option<Controller>,
    pub(crate) io: Option<Controller>,
    pub(crate) freezer: Option<Controller>,
    pub(crate) unified: Option<PathBuf>,
}

pub(crate) fn detect() -> Detected {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut detected = detect_in(&groups, &mounts);
    let writable = |path: &Path| rustix::fs::access(path, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    let Detected { memory, pids, cpu, io, freezer, .. } = &mut detected;
    for controller in [memory, pids, cpu, io, freezer] {
        if controller.as_ref().is_some_and(|controller| !writable(&controller.own)) {
            *controller = None;
        }
    }
    detected.unified = detected.unified.filter(|own| writable(own));
    if let Some(own) = detected.unified.clone() {
        let available = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
        let fill = |slot: &mut Option<Controller>, name: &str| {
            if slot.is_none() && available.split_whitespace().any(|word| word == name) {
                *slot = Some(Controller { hierarchy: Hierarchy::V2, own: own.clone() });
            }
        };
        fill(&mut detected.memory, "memory");
        fill(&mut detected.pids, "pids");
        fill(&mut detected.cpu, "cpu");
        fill(&mut detected.io, "io");
    }
    detected
}

/// The v1 controllers and the v2 group, from the two texts of the kernel.
fn detect_in(groups: &str, mounts: &str) -> Detected {
    let mut detected = Detected::default();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let Some(own) = folder(mounts, controllers, path) else { continue };
        if controllers.is_empty() {
            detected.unified = Some(own);
            continue;
        }
        for controller in controllers.split(',') {
            let slot = match controller {
                "memory" => &mut detected.memory,
                "pids" => &mut detected.pids,
                "cpu" => &mut detected.cpu,
                "blkio" => &mut detected.io,
                "freezer" => &mut detected.freezer,
                _ => continue,
            };
            *slot = Some(Controller { hierarchy: Hierarchy::V1, own: own.clone() });
        }
    }
    detected
}

/// Where a group is to be seen: the mount that shows the hierarchy and, of it, this part.
fn folder(mounts: &str, controllers: &str, path: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1)?);
        let shows = if controllers.is_empty() {
            kind == "cgroup2"
        } else {
            kind == "cgroup"
                && controllers.split(',').all(|one| options.split(',').any(|option| option == one))
        };
        let below = path.strip_prefix(root.trim_end_matches('/'))?;
        shows.then(|| PathBuf::from(format!("{point}{below}").trim_end_matches('/')))
    })
}

/// The sub-tree of one launcher, below its own group in each hierarchy. Removed by [`Tree::remove`].
#[derive(Debug)]
pub struct Tree {
    memory: Option<Controller>,
    pids: Option<Controller>,
    cpu: Option<Controller>,
    io: Option<Controller>,
    /// Only where v2 cannot stop a tree.
    freezer: Option<PathBuf>,
    unified: Option<PathBuf>,
}

impl Tree {
    /// Makes what can be made; a hierarchy that refuses is left out and shows in each group's [`Group::enforced`].
    /// `move_self`: on v2 a group with limited children may hold no process, so the caller moves to a leaf.
    #[must_use]
    pub fn create(features: &Features, name: &str, move_self: bool) -> Tree {
        let make = |own: &Path| {
            let folder = own.join(name);
            make_folder(&folder).ok().map(|()| folder)
        };
        let v2_controllers = [&features.memory, &features.pids, &features.cpu, &features.io]
            .into_iter()
            .flatten()
            .any(|controller| controller.hierarchy == Hierarchy::V2);
        let unified = features.unified.as_deref().and_then(make);
        let delegated = match (&features.unified, &unified) {
            (Some(own), Some(folder)) if v2_controllers && (!move_self || move_to_leaf(own)) => {
                Some([own.as_path(), folder.as_path()])
            }
            _ => None,
        };
        let place = |controller: &Option<Controller>, name: &str| {
            let Controller { hierarchy, own } = controller.as_ref()?;
            let own = match hierarchy {
                Hierarchy::V1 => make(own)?,
                Hierarchy::V2 => unified.clone().filter(|_| delegate(delegated, name))?,
            };
            Some(Controller { hierarchy: *hierarchy, own })
        };
        let freezer = features.freezer.clone().filter(|_| unified.is_none());
        Tree {
            memory: place(&features.memory, "+memory"),
            pids: place(&features.pids, "+pids"),
            cpu: place(&features.cpu, "+cpu"),
            io: place(&features.io, "+io"),
            freezer: place(&freezer, "").map(|one| one.own),
            unified,
        }
    }

    fn folders(&self) -> Vec<&Path> {
        let limits = [&self.memory, &self.pids, &self.cpu, &self.io];
        let limits = limits.into_iter().flatten().map(|one| one.own.as_path());
        let mut folders: Vec<&Path> =
            limits.chain(self.freezer.as_deref()).chain(self.unified.as_deref()).collect();
        folders.sort_unstable();
        folders.dedup();
        folders
    }

    /// Makes the group of one process tree with its limits. Fails where it cannot hold a limit of disks that must be held.
    pub fn group(&self, name: &str, limits: &Limits) -> io::Result<Group> {
        let mut group = Group {
            folders: Vec::new(),
            unified: None,
            memory: None,
            freezer: None,
            enforced: Vec::new(),
            left_out: Vec::new(),
        };
        for folder in self.folders() {
            let folder = folder.join(name);
            if let Err(error) = make_folder(&folder) {
                let _ = group.remove();
                return Err(error);
            }
            group.folders.push(folder);
        }
        if let Some(unified) = &self.unified {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = unified.join(name);
            let open = rustix::fs::open(&folder, flags, Mode::empty())?;
            group.unified = Some(Unified { folder, open });
        }
        group.freezer = self.freezer.as_ref().map(|folder| folder.join(name));
        let place = |controller: &Option<Controller>| {
            controller.as_ref().map(|one| Controller { hierarchy: one.hierarchy, own: one.own.join(name) })
        };
        group.memory = place(&self.memory);
        group.limit(limits, &group.memory.clone(), &place(&self.pids), &place(&self.cpu));
        if let Some(io) = &limits.io {
            match io_limits::apply(io, place(&self.io).as_ref()) {
                Ok(applied) => {
                    group.enforced.extend(applied.enforced);
                    group.left_out = applied.left_out;
                }
                Err(error) => {
                    let _ = group.remove();
                    return Err(error);
                }
            }
        }
        Ok(group)
    }

    /// Removes the sub-tree; fails while a group is left in it.
    pub fn remove(&self) -> io::Result<()> {
        self.folders().into_iter().try_for_each(remove_folder)
    }
}

/// Of v2, a group with limited children may hold no process.
fn move_to_leaf(own: &Path) -> bool {
    let leaf = own.join(LEAF);
    make_folder(&leaf).is_ok() && fs::write(leaf.join("cgroup.procs"), "0").is_ok()
}

/// Hands a v2 controller down, from one group to the next. One that is not to be had takes no other with it.
fn delegate(groups: Option<[&Path; 2]>, controller: &str) -> bool {
    groups.is_some_and(|groups| {
        groups.iter().all(|group| fs::write(group.join("cgroup.subtree_control"), controller).is_ok())
    })
}

fn make_folder(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[derive(Debug)]
struct Unified {
    folder: PathBuf,
    open: OwnedFd,
}

/// The group of one process tree.
#[derive(Debug)]
pub struct Group {
    folders: Vec<PathBuf>,
    unified: Option<Unified>,
    memory: Option<Controller>,
    freezer: Option<PathBuf>,
    enforced: Vec<Enforced>,
    left_out: Vec<String>,
}

impl Group {
    fn limit(
        &mut self,
        limits: &Limits,
        memory: &Option<Controller>,
        pids: &Option<Controller>,
        cpu: &Option<Controller>,
    ) {
        let mut hold = |limit, controller: &Option<Controller>, result: io::Result<()>| {
            let by = match (controller, result) {
                (Some(Controller { hierarchy: Hierarchy::V1, .. }), Ok(())) => EnforcedBy::CgroupV1,
                (Some(Controller { hierarchy: Hierarchy::V2, .. }), Ok(())) => EnforcedBy::CgroupV2,
                _ => EnforcedBy::Nothing,
            };
            self.enforced.push(Enforced { limit, by });
        };
        if let Some(bytes) = limits.memory_bytes_max {
            hold(LimitKind::Memory, memory, with(memory, |one| limit_memory(one, bytes)));
        }
        if let Some(most) = limits.processes_max {
            hold(
                LimitKind::Processes,
                pids,
                with(pids, |one| fs::write(one.own.join("pids.max"), most.to_string())),
            );
        }
        if let Some(weight) = limits.cpu_weight {
            hold(LimitKind::CpuWeight, cpu, with(cpu, |one| weigh_cpu(one, weight)));
        }
        if let Some(millicores) = limits.cpu_millicores_max {
            hold(LimitKind::CpuQuota, cpu, with(cpu, |one| limit_cpu(one, millicores)));
        }
    }

    /// Which limits this group holds.
    #[must_use]
    pub fn enforced(&self) -> &[Enforced] {
        &self.enforced
    }

    /// Why one disk is not limited, each, though limits of disks may be held.
    #[must_use]
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// For birth inside the group. It places the child in v2 only.
    pub(crate) fn unified_folder(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(|unified| unified.open.as_fd())
    }

    /// The files through which a child joins in v1, by writing `0`, itself.
    pub(crate) fn entrances(&self) -> io::Result<Vec<File>> {
        let unified = self.unified_path();
        let v1 = self.folders.iter().filter(|folder| Some(*folder) != unified);
        v1.map(|folder| File::options().write(true).open(folder.join("tasks"))).collect()
    }

    /// Moves a process into v2 that could not be born there.
    pub(crate) fn move_into_unified(&self, pid: i32) -> io::Result<()> {
        let Some(folder) = self.unified_path() else { return Ok(()) };
        fs::write(folder.join("cgroup.procs"), pid.to_string())
    }

    /// The processes of the group, as this pid namespace numbers them.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        let Some(folder) = self.folders.first() else { return Ok(Vec::new()) };
        let text = fs::read_to_string(folder.join("cgroup.procs"))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    fn unified_path(&self) -> Option<&PathBuf> {
        self.unified.as_ref().map(|unified| &unified.folder)
    }

    /// Stops or continues the whole tree.
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        if let Some(unified) = self.unified_path() {
            return fs::write(unified.join("cgroup.freeze"), if frozen { "1" } else { "0" });
        }
        let freezer = self.freezer.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        fs::write(freezer.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" })
    }

    /// Kills everything in the group, also what is being forked meanwhile.
    pub fn kill(&self) -> io::Result<()> {
        if let Some(unified) = self.unified_path()
            && fs::write(unified.join("cgroup.kill"), "1").is_ok()
        {
            return Ok(());
        }
        // Frozen it cannot fork; a frozen v1 task ignores SIGKILL until it is thawed.
        let frozen = self.freezer.is_some() && self.freeze(true).is_ok();
        let result = self.kill_each();
        if frozen {
            self.freeze(false)?;
        }
        result
    }

    fn kill_each(&self) -> io::Result<()> {
        for _ in 0..KILL_ROUNDS_MAX {
            let processes = self.processes()?;
            if processes.is_empty() {
                return Ok(());
            }
            for pid in processes.into_iter().filter_map(Pid::from_raw) {
                // Gone already is what is wanted.
                if let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
                    let _ = rustix::process::pidfd_send_signal(&handle, Signal::KILL);
                }
            }
            if self.freezer.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Processes killed because the group had no memory left; `None` where no controller counts it.
    #[must_use]
    pub fn oom_kills(&self) -> Option<u64> {
        let memory = self.memory.as_ref()?;
        let file = match memory.hierarchy {
            Hierarchy::V1 => "memory.oom_control",
            Hierarchy::V2 => "memory.events",
        };
        field(&fs::read_to_string(memory.own.join(file)).ok()?, "oom_kill")
    }

    /// Most memory that the group has used at once, bytes.
    #[must_use]
    pub fn memory_peak_bytes(&self) -> Option<u64> {
        self.memory_number("memory.max_usage_in_bytes", "memory.peak")
    }

    /// Memory in use, bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        self.memory_number("memory.usage_in_bytes", "memory.current")
    }

    fn memory_number(&self, v1: &str, v2: &str) -> Option<u64> {
        let memory = self.memory.as_ref()?;
        let file = if memory.hierarchy == Hierarchy::V1 { v1 } else { v2 };
        fs::read_to_string(memory.own.join(file)).ok()?.trim().parse().ok()
    }

    /// Processor time of the group, from v2, which counts it without a controller.
    #[must_use]
    pub fn cpu_time_us(&self) -> Option<u64> {
        field(&fs::read_to_string(self.unified_path()?.join("cpu.stat")).ok()?, "usage_usec")
    }

    /// Removes the group; `ResourceBusy` while a process is in it.
    pub fn remove(&self) -> io::Result<()> {
        self.folders.iter().try_for_each(|folder| remove_folder(folder))
    }
}

fn with(controller: &Option<Controller>, set: impl Fn(&Controller) -> io::Result<()>) -> io::Result<()> {
    controller.as_ref().map_or(Err(io::ErrorKind::Unsupported.into()), set)
}

fn limit_memory(memory: &Controller, bytes: u64) -> io::Result<()> {
    let set = |file: &str, value: &str| fs::write(memory.own.join(file), value);
    match memory.hierarchy {
        Hierarchy::V1 => {
            set("memory.limit_in_bytes", &bytes.to_string())?;
            // Absent without swap accounting; with it, swap must not be the way out.
            let _ = set("memory.memsw.limit_in_bytes", &bytes.to_string());
        }
        Hierarchy::V2 => {
            set("memory.max", &bytes.to_string())?;
            let _ = set("memory.swap.max", "0");
        }
    }
    Ok(())
}

fn weigh_cpu(cpu: &Controller, weight: u32) -> io::Result<()> {
    match cpu.hierarchy {
        // 100 is the usual weight, 1024 are the usual shares, 2 the fewest.
        Hierarchy::V1 => {
            let shares = (u64::from(weight) * 1024 / 100).max(2);
            fs::write(cpu.own.join("cpu.shares"), shares.to_string())
        }
        Hierarchy::V2 => fs::write(cpu.own.join("cpu.weight"), weight.to_string()),
    }
}

fn limit_cpu(cpu: &Controller, millicores: u32) -> io::Result<()> {
    let quota = CPU_PERIOD_US * u64::from(millicores) / 1000;
    match cpu.hierarchy {
        Hierarchy::V1 => {
            fs::write(cpu.own.join("cpu.cfs_period_us"), CPU_PERIOD_US.to_string())?;
            fs::write(cpu.own.join("cpu.cfs_quota_us"), quota.to_string())
        }
        Hierarchy::V2 => fs::write(cpu.own.join("cpu.max"), format!("{quota} {CPU_PERIOD_US}")),
    }
}

/// The number behind a name in a `name number` file.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
34 31 0:31 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /outer /sys/fs/cgroup/memory rw,relatime shared:4 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn own_groups_are_found_hierarchy_by_hierarchy() {
        let groups = "9:name=systemd:/x\n4:memory:/outer/inner\n1:cpu,cpuacct:/\n8:pids:/\n0::/a/b\n";
        let detected = detect_in(groups, MOUNTS);
        let memory = detected.memory.unwrap();
        assert_eq!(memory.own, Path::new("/sys/fs/cgroup/memory/inner"));
        assert_eq!(memory.hierarchy, Hierarchy::V1);
        assert_eq!(detected.cpu.unwrap().own, Path::new("/sys/fs/cgroup/cpu"));
        assert!(detected.pids.is_none(), "its hierarchy is not mounted");
        assert_eq!(detected.unified.unwrap(), Path::new("/sys/fs/cgroup/unified/a/b"));
    }

    #[test]
    fn a_group_outside_of_what_is_mounted_is_not_ours() {
        assert!(detect_in("4:memory:/elsewhere\n", MOUNTS).memory.is_none());
    }

    #[test]
    fn fields_are_found_by_whole_name() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(field(text, "oom_kill"), Some(3));
        assert_eq!(field(text, "oom"), None);
    }
}
