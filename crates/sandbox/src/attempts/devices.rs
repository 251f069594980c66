//! Devices: what `/dev` of the host has, and what can be done to a terminal.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::{Attempt, Canaries, Failure, Way, calls, same};
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
];

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
