//! Devices: what `/dev` of the host has, and what can be done to a terminal.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::{Attempt, BELONGS_TO_ROOT, Canaries, Failure, NEEDS_THE_HOSTS_RIGHT, Way, calls, same};
use crate::guard::Guard::{Caps, Mountns, Seccomp, Userns};

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new("write_to_a_terminal", "writes to a terminal of the user", &[Mountns], write_to_a_terminal),
    Attempt::new(
        "read_shared_memory",
        "reads an object in the host's /dev/shm",
        &[Mountns],
        read_shared_memory,
    ),
    Attempt::new("make_a_device", "makes a device node", &[Caps, Userns], make_a_device).rootless(
        Way::Never("device nodes are for the initial user namespace, where a rootless node has no right"),
    ),
    Attempt::new(
        "type_into_a_terminal",
        "types into its own terminal as if a person did",
        &[Seccomp],
        type_into,
    ),
    Attempt::new(
        "open_the_kernel_log",
        "opens the kernel's log for writing",
        &[Mountns],
        open_the_kernel_log,
    )
    .rootless(Way::Never("the host lets only root write to its log, so no user can lose it")),
    Attempt::new("open_a_disk", "opens a disk of the host beside its file system", &[Mountns], open_a_disk)
        .rootless(BELONGS_TO_ROOT),
    Attempt::new("open_a_loop_device", "opens the control of loop devices", &[Mountns], |_| {
        open("/dev/loop-control")
    })
    .rootless(BELONGS_TO_ROOT),
    Attempt::new("open_the_console", "opens the host's console", &[Mountns], |_| open("/dev/console"))
        .rootless(BELONGS_TO_ROOT),
    Attempt::new(
        "open_fuse",
        "opens the device by which a program becomes a file system",
        &[Mountns],
        |_| open("/dev/fuse"),
    ),
    Attempt::new("open_kvm", "opens the device of virtual machines", &[Mountns], |_| open("/dev/kvm")),
    Attempt::new("open_tun", "opens the device of network tunnels", &[Mountns], |_| open("/dev/net/tun")),
    Attempt::new("open_physical_memory", "opens the memory of the machine", &[Mountns, Caps, Userns], |_| {
        open("/dev/mem")
    })
    .rootless(BELONGS_TO_ROOT),
    Attempt::new("see_the_devices", "sees which devices the host has", &[Mountns], |_| look("/dev/net")),
    Attempt::new(
        "reseed_the_random_generator",
        "makes the host's random generator start anew",
        &[Caps, Userns],
        reseed,
    )
    .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new(
        "set_a_line_discipline",
        "puts a protocol of the kernel on its terminal, for which modules are loaded",
        &[Seccomp],
        line_discipline,
    ),
    Attempt::new(
        "lock_the_keyboard_of_others",
        "asks a console of the host for its keyboard",
        &[Seccomp, Mountns, Caps, Userns],
        console_state,
    )
    .rootless(BELONGS_TO_ROOT),
    Attempt::new("make_a_file_immutable", "makes a file that cannot be removed", &[Caps, Userns], immutable)
        .rootless(NEEDS_THE_HOSTS_RIGHT)
        .inside_only(),
];

/// Opened and closed; nothing is asked of it.
fn open(path: &str) -> Result<(), Failure> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())?;
    Ok(())
}

fn look(path: &str) -> Result<(), Failure> {
    fs::symlink_metadata(path)?;
    Ok(())
}

/// The first one that the kernel lists, for reading.
fn open_a_disk(_: &Canaries) -> Result<(), Failure> {
    let text = fs::read_to_string("/proc/partitions")?;
    let named = text.lines().filter_map(|line| line.split_ascii_whitespace().nth(3));
    // The table begins with a head, and loop and memory disks are no disks.
    let disk = named
        .filter(|name| *name != "name")
        .find(|name| !name.starts_with("loop") && !name.starts_with("ram"));
    fs::File::open(format!("/dev/{}", disk.ok_or(Failure::Absent("disk"))?))?;
    Ok(())
}

/// It mixes more in, which does no harm.
fn reseed(_: &Canaries) -> Result<(), Failure> {
    let device = fs::File::open("/dev/urandom")?;
    ioctl(&device, RNDRESEEDCRNG, 0)
}

const RNDRESEEDCRNG: u64 = 0x5207;
const FS_IOC_SETFLAGS: u64 = 0x4008_6602;
const FS_IMMUTABLE: libc::c_long = 0x10;
const N_TTY: i32 = 0;
/// Of TIOCLINUX: which shift keys are held. It only tells.
const SHIFT_STATE: u8 = 6;

/// An ioctl with a number, or with a pointer to what outlives the call and is as large as the request says.
fn ioctl(device: &impl AsRawFd, request: u64, argument: u64) -> Result<(), Failure> {
    // SAFETY: each caller passes a number or a pointer to a structure of the size that the request takes.
    unsafe { calls::call(libc::SYS_ioctl, [device.as_raw_fd() as u64, request, argument, 0, 0]) }?;
    Ok(())
}

/// The usual one: nothing changes.
fn line_discipline(_: &Canaries) -> Result<(), Failure> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    let discipline = N_TTY;
    ioctl(&master, libc::TIOCSETD, &raw const discipline as u64)
}

fn console_state(_: &Canaries) -> Result<(), Failure> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let console = rustix::fs::open("/dev/tty1", flags, Mode::empty())?;
    let mut subcode = [SHIFT_STATE, 0];
    ioctl(&console, libc::TIOCLINUX, subcode.as_mut_ptr() as u64)
}

/// Made mutable again in the end.
fn immutable(_: &Canaries) -> Result<(), Failure> {
    let path = format!("/tmp/bailiwick-immutable-{}", std::process::id());
    let file = fs::File::create_new(&path)?;
    let (immutable, usual) = (FS_IMMUTABLE, 0 as libc::c_long);
    let made = ioctl(&file, FS_IOC_SETFLAGS, &raw const immutable as u64);
    let _ = ioctl(&file, FS_IOC_SETFLAGS, &raw const usual as u64);
    fs::remove_file(&path)?;
    made
}

fn write_to_a_terminal(canaries: &Canaries) -> Result<(), Failure> {
    Ok(fs::OpenOptions::new().write(true).open(canaries.get("terminal")?)?.write_all(b"x")?)
}

fn read_shared_memory(canaries: &Canaries) -> Result<(), Failure> {
    same(&fs::read(canaries.get("shared_file")?)?, canaries.get("secret")?)
}

fn make_a_device(_: &Canaries) -> Result<(), Failure> {
    let path = format!("/tmp/bailiwick-device-{}", std::process::id());
    mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR, makedev(1, 3))?;
    Ok(fs::remove_file(path)?)
}

/// In a child: it needs a session of its own, whose terminal it opens.
fn type_into(_: &Canaries) -> Result<(), Failure> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let path = ptsname(&master, Vec::new())?.to_string_lossy().into_owned();
    calls::in_child(|| {
        rustix::process::setsid()?;
        let terminal = fs::OpenOptions::new().read(true).write(true).open(&path)?;
        // SAFETY: TIOCSCTTY takes a number, TIOCSTI reads one byte.
        let typed = unsafe {
            libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0);
            libc::ioctl(terminal.as_raw_fd(), libc::TIOCSTI, c"x".as_ptr())
        };
        if typed < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
    })
}

/// Opened and closed; nothing is written.
fn open_the_kernel_log(_: &Canaries) -> Result<(), Failure> {
    fs::OpenOptions::new().write(true).open("/dev/kmsg")?;
    Ok(())
}
