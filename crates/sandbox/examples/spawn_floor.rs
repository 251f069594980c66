//! What a sandbox cannot cost less than on this kernel: a bare `clone3` with the same namespaces, and the same step by
//! step with what a plan like ours asks for, each done in the fewest calls, by one process, with nothing checked,
//! reported or limited. Beside it what `launch` takes.
//!
//! `cargo run --release -p sandbox --example spawn_floor [rounds]`. Interleaved rounds, medians, from the start to the
//! `execve` of the program, in microseconds. On a shared machine read the ratios.

use std::error::Error;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{CWD, FileType, Mode, mkdir, mknodat, symlink};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsmount, fsopen, mount, mount_bind, mount_change,
    mount_remount, move_mount, open_tree, unmount,
};
use rustix::thread::CapabilitySet;
use sandbox::process::reap;
use sandbox::seccomp::{Profile, assemble};
use sandbox::{Executable, Features, Mount, Namespaces, Plan, launch};

const ROUNDS: usize = 200;
const SHOWN: [&str; 4] = ["/usr", "/bin", "/lib", "/lib64"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// How far a raw spawn goes. Each level does what the one before does.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Level {
    Bare,
    Root,
    Devices,
    Masks,
    Rights,
}

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some("end") {
        return Ok(());
    }
    let rounds = std::env::args().nth(1).map_or(Ok(ROUNDS), |text| text.parse())?;
    let features = Features::detect();
    let image: Vec<OwnedFd> = vec![File::open("/proc/self/exe")?.into()];
    let plan = plan(Namespaces { user: !features.privileged, cgroup: false, ..Namespaces::ALL });
    let raw = [
        ("bare clone3, same namespaces", Level::Bare),
        ("+ root of tmpfs, binds, proc; pivot", Level::Root),
        ("+ /dev", Level::Devices),
        ("+ covered parts of /proc", Level::Masks),
        ("+ no capabilities, system call filter", Level::Rights),
    ];
    let mut times: Vec<(&str, Vec<u128>)> = raw.iter().map(|(name, _)| (*name, Vec::new())).collect();
    times.push(("launch: all that, checked, and landlock", Vec::new()));
    for _ in 0..rounds {
        for (index, (_, times)) in times.iter_mut().enumerate() {
            let start = Instant::now();
            let pid = match raw.get(index) {
                Some((_, level)) => spawn(*level, &plan, &image, features.privileged)?,
                None => launch(&plan, &image, &features, None)?.pid,
            };
            times.push(start.elapsed().as_micros());
            loop {
                match reap()? {
                    Some(reaped) if reaped.pid == pid => {
                        if reaped.status != sandbox::process::ExitStatus::Code(0) {
                            return Err(format!("{:?} in row {index}", reaped.status).into());
                        }
                        break;
                    }
                    _ => std::thread::yield_now(),
                }
            }
        }
    }
    println!("{rounds} rounds, start to execve, median");
    let mut bare = 0;
    for (name, times) in &mut times {
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default().max(1);
        bare = if bare == 0 { median } else { bare };
        println!("{name:<42} {median:>6} µs  {:>5.2} × bare", median as f64 / bare as f64);
    }
    Ok(())
}

fn plan(namespaces: Namespaces) -> Plan {
    let bind = |path: &str| Mount::Bind {
        source: path.to_owned(),
        target: path.to_owned(),
        writable: false,
        optional: true,
    };
    let mut mounts: Vec<Mount> = SHOWN.map(bind).to_vec();
    mounts.extend([
        Mount::Proc,
        Mount::Dev,
        Mount::Tmpfs { target: "/tmp".to_owned(), size_bytes_max: 1 << 20, mode: 0o1777 },
    ]);
    let mut plan = Plan::new("end", Executable::Slot(0), Profile::Program).with_mounts(mounts);
    plan.namespaces = namespaces;
    plan.arguments = vec!["end".to_owned(), "end".to_owned()];
    plan
}

/// Returns when the child has executed: then the last writer of a pipe is gone.
fn spawn(level: Level, plan: &Plan, image: &[OwnedFd], privileged: bool) -> Result<i32, Box<dyn Error>> {
    let (ended, held) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let own = if privileged { 0 } else { libc::CLONE_NEWUSER };
    let spaces =
        libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET;
    let filter = plan.seccomp.as_ref().map(assemble).unwrap_or_default();
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    // SAFETY: clone_args is plain numbers; this process has one thread.
    let pid = unsafe {
        let mut arguments: libc::clone_args = std::mem::zeroed();
        arguments.flags = (spaces | own) as u32 as u64;
        arguments.exit_signal = libc::SIGCHLD as u64;
        libc::syscall(libc::SYS_clone3, &raw mut arguments, std::mem::size_of::<libc::clone_args>())
    };
    if pid == 0 {
        let prepared = prepare(level, plan, &filter, (!privileged).then_some((uid, gid)));
        if prepared.is_ok()
            && let Some(image) = image.first()
        {
            execute(image);
        }
        // SAFETY: has no preconditions.
        unsafe { libc::_exit(1) }
    }
    drop(held);
    rustix::io::read(&ended, &mut [0; 1])?;
    Ok(i32::try_from(pid)?)
}

fn execute(image: &OwnedFd) {
    let words = [c"end".as_ptr(), c"end".as_ptr(), std::ptr::null()];
    let none = [std::ptr::null::<libc::c_char>()];
    // SAFETY: both lists end with a null pointer.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            image.as_raw_fd(),
            c"".as_ptr(),
            words.as_ptr(),
            none.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
}

fn prepare(
    level: Level,
    plan: &Plan,
    filter: &[libc::sock_filter],
    map: Option<(u32, u32)>,
) -> io::Result<()> {
    if let Some((uid, gid)) = map.filter(|_| level >= Level::Root) {
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/gid_map", format!("1000 {gid} 1"))?;
        std::fs::write("/proc/self/uid_map", format!("1000 {uid} 1"))?;
    }
    if level >= Level::Root {
        root(level >= Level::Devices)?;
    }
    if level >= Level::Masks {
        cover(plan)?;
    }
    if level >= Level::Root {
        mount_remount("/", MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV, "")?;
    }
    if level >= Level::Rights {
        rustix::thread::set_no_new_privs(true)?;
        for capability in (0..64).filter_map(|bit| CapabilitySet::from_bits(1 << bit)) {
            let _ = rustix::thread::remove_capability_from_bounding_set(capability);
        }
        load(filter)?;
    }
    Ok(())
}

fn root(devices: bool) -> io::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let tree = |path: &str| {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        open_tree(CWD, path, flags | OpenTreeFlags::AT_RECURSIVE).map(|tree| (path.to_owned(), tree))
    };
    let shown: Vec<_> = SHOWN.into_iter().map_while(|path| tree(path).ok()).collect();
    let nodes: Vec<_> =
        DEVICES.iter().filter(|_| devices).map(|name| tree(&format!("/dev/{name}"))).collect();
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let proc = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    tmpfs("/tmp", "size=4m,mode=0755")?;
    rustix::process::chdir("/tmp")?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    let folder = Mode::from_raw_mode(0o755);
    for (path, tree) in &shown {
        mkdir(path, folder)?;
        put(tree, path)?;
        mount_remount(path, MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID, "")?;
    }
    mkdir("/proc", folder)?;
    put(&proc, "/proc")?;
    mkdir("/tmp", folder)?;
    tmpfs("/tmp", "size=1m,mode=1777")?;
    if devices {
        mkdir("/dev", folder)?;
        for node in nodes {
            let (path, tree) = node?;
            mknodat(CWD, &path, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)?;
            put(&tree, &path)?;
        }
        mkdir("/dev/shm", folder)?;
        tmpfs("/dev/shm", "size=64m,mode=1777")?;
        mkdir("/dev/pts", folder)?;
        mount("devpts", "/dev/pts", "devpts", MountFlags::NOSUID, Some(c"ptmxmode=0666"))?;
        for (name, to) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
            symlink(format!("/proc/self/{to}"), format!("/dev/{name}"))?;
        }
    }
    Ok(())
}

fn put(tree: &OwnedFd, path: &str) -> rustix::io::Result<()> {
    move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn tmpfs(path: &str, options: &str) -> io::Result<()> {
    let options = std::ffi::CString::new(options)?;
    let options: &CStr = &options;
    Ok(mount("tmpfs", path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options))?)
}

/// In the same places as the plan; what is not there costs the failed attempt.
fn cover(plan: &Plan) -> io::Result<()> {
    for path in &plan.masked {
        if mount_bind("/dev/null", path).is_err() && std::fs::exists(path)? {
            tmpfs(path, "size=4k,mode=0555")?;
        }
    }
    for path in &plan.read_only {
        if mount_bind(path, path).is_ok() {
            mount_remount(path, MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID, "")?;
        }
    }
    Ok(())
}

fn load(filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap_or(0),
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies `len` instructions from a slice of that length.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
