//! Names in folders of the user: what can be made, moved, watched and reached without opening a file.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, Timespec, Timestamps, XattrFlags};

use super::calls::{c_path, call, owned};
use super::{Attempt, Canaries, Failure, NEEDS_THE_HOSTS_RIGHT, held, same};
use crate::guard::Guard::{Caps, Landlock, Mountns, Seccomp, Userns};

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new("list_a_folder", "lists a folder of the user", &[Mountns], list),
    Attempt::new("truncate_a_file", "empties a file of the user by its path", &[Mountns, Landlock], truncate),
    Attempt::new("rename_a_file", "gives a file of the user another name", &[Mountns, Landlock], rename),
    Attempt::new("exchange_two_files", "exchanges two files of the user", &[Mountns, Landlock], exchange),
    Attempt::new("link_to_a_file", "makes a second name of a file of the user", &[Mountns, Landlock], link),
    Attempt::new("make_a_folder", "makes a folder among those of the user", &[Mountns, Landlock], folder),
    Attempt::new("leave_a_pipe", "leaves a named pipe in a folder of the user", &[Mountns, Landlock], pipe),
    Attempt::new("leave_a_socket", "serves a socket in a folder of the user", &[Mountns, Landlock], socket),
    Attempt::new(
        "climb_by_dots",
        "reads a file of the user by way of more dots than there are folders",
        &[Mountns, Landlock],
        climb,
    ),
    Attempt::new("run_a_file", "executes a program of the user", &[Mountns, Landlock], execute),
    Attempt::new("change_the_times", "makes a file of the user look older", &[Mountns], times),
    Attempt::new("mark_a_file", "gives a file of the user an attribute", &[Mountns], mark),
    Attempt::new("watch_a_file", "is told of each use of a file of the user", &[Mountns], watch),
    Attempt::new(
        "watch_with_fanotify",
        "is told of each use of a file of the user, by its handle",
        &[Seccomp, Mountns],
        fanotify,
    ),
    Attempt::new(
        "lease_a_file",
        "makes others wait who open a file of the user",
        &[Mountns, Landlock],
        lease,
    ),
    Attempt::new("learn_a_handle", "learns the kernel's handle of a file of the host", &[Seccomp], handle),
    Attempt::new(
        "open_by_a_handle",
        "reads a file of the user by the kernel's handle of it, from any folder of its disk",
        &[Seccomp, Caps, Userns],
        by_handle,
    )
    .rootless(NEEDS_THE_HOSTS_RIGHT),
];

fn list(canaries: &Canaries) -> Result<(), Failure> {
    let found = fs::read_dir(canaries.file("")?)?.flatten().any(|entry| entry.file_name() == "secret");
    if found { Ok(()) } else { Err(held("another folder")) }
}

fn truncate(canaries: &Canaries) -> Result<(), Failure> {
    let path = c_path(&canaries.file("written")?)?;
    // SAFETY: a C string and a number.
    unsafe { call(libc::SYS_truncate, [path.as_ptr() as u64, 0, 0, 0, 0]) }?;
    Ok(())
}

fn rename(canaries: &Canaries) -> Result<(), Failure> {
    let (old, new) = (canaries.file("victim")?, canaries.file("renamed")?);
    fs::rename(&old, &new)?;
    Ok(fs::rename(&new, &old)?)
}

fn exchange(canaries: &Canaries) -> Result<(), Failure> {
    let (one, other) = (canaries.file("written")?, canaries.file("victim")?);
    Ok(rustix::fs::renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE)?)
}

fn link(canaries: &Canaries) -> Result<(), Failure> {
    let second = canaries.file("second")?;
    fs::hard_link(canaries.file("secret")?, &second)?;
    Ok(fs::remove_file(second)?)
}

fn folder(canaries: &Canaries) -> Result<(), Failure> {
    let folder = canaries.file("folder")?;
    fs::create_dir(&folder)?;
    Ok(fs::remove_dir(folder)?)
}

fn pipe(canaries: &Canaries) -> Result<(), Failure> {
    let path = canaries.file("pipe")?;
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0)?;
    Ok(fs::remove_file(path)?)
}

fn socket(canaries: &Canaries) -> Result<(), Failure> {
    let path = canaries.file("served")?;
    drop(UnixListener::bind(&path)?);
    Ok(fs::remove_file(path)?)
}

fn climb(canaries: &Canaries) -> Result<(), Failure> {
    let up = "../".repeat(64);
    let path = format!("/proc/self/{up}{}", canaries.file("secret")?.display());
    same(&fs::read(path)?, canaries.get("secret")?)
}

fn execute(canaries: &Canaries) -> Result<(), Failure> {
    let output = Command::new(canaries.file("program")?).output()?;
    same(output.stdout.trim_ascii_end(), canaries.get("secret")?)
}

fn times(canaries: &Canaries) -> Result<(), Failure> {
    let old = Timespec { tv_sec: 1, tv_nsec: 0 };
    let times = Timestamps { last_access: old, last_modification: old };
    Ok(rustix::fs::utimensat(CWD, canaries.file("written")?, &times, AtFlags::empty())?)
}

fn mark(canaries: &Canaries) -> Result<(), Failure> {
    let path = canaries.file("written")?;
    Ok(rustix::fs::setxattr(path, "user.bailiwick", b"x", XattrFlags::empty())?)
}

fn watch(canaries: &Canaries) -> Result<(), Failure> {
    let watcher = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC)?;
    let events = rustix::fs::inotify::WatchFlags::ACCESS;
    rustix::fs::inotify::add_watch(watcher, canaries.file("secret")?, events)?;
    Ok(())
}

fn fanotify(canaries: &Canaries) -> Result<(), Failure> {
    let path = c_path(&canaries.file("secret")?)?;
    let flags = u64::from(libc::FAN_CLOEXEC | libc::FAN_REPORT_FID);
    // SAFETY: numbers only.
    let group = unsafe { call(libc::SYS_fanotify_init, [flags, libc::O_RDONLY as u64, 0, 0, 0]) }?;
    // SAFETY: it was just made.
    let group = unsafe { owned(group) };
    let arguments = [
        group.as_raw_fd() as u64,
        u64::from(libc::FAN_MARK_ADD),
        libc::FAN_OPEN,
        libc::AT_FDCWD as u64,
        path.as_ptr() as u64,
    ];
    // SAFETY: a descriptor, numbers and a C string.
    unsafe { call(libc::SYS_fanotify_mark, arguments) }?;
    Ok(())
}

fn lease(canaries: &Canaries) -> Result<(), Failure> {
    let file = fs::File::open(canaries.file("secret")?)?;
    let arguments = [file.as_raw_fd() as u64, libc::F_SETLEASE as u64, libc::F_RDLCK as u64, 0, 0];
    // SAFETY: a descriptor and numbers.
    unsafe { call(libc::SYS_fcntl, arguments) }?;
    Ok(())
}

fn handle(_: &Canaries) -> Result<(), Failure> {
    super::making::handle_of(std::path::Path::new("/etc/passwd"))?;
    Ok(())
}

/// The folder that is opened first only says which disk is meant.
fn by_handle(canaries: &Canaries) -> Result<(), Failure> {
    let mut handle = canaries.bytes("handle")?;
    let disk: u64 = canaries.number("disk")?;
    let mut last = held("no folder of the canary's disk is shown");
    for folder in ["/usr", "/etc", "/bin", "/tmp"] {
        let Ok(folder) = fs::File::open(folder) else { continue };
        if folder.metadata()?.dev() != disk {
            continue;
        }
        let arguments = [folder.as_raw_fd() as u64, handle.as_mut_ptr() as u64, libc::O_RDONLY as u64, 0, 0];
        // SAFETY: a handle as the kernel gave it, with its length in its head.
        match unsafe { call(libc::SYS_open_by_handle_at, arguments) } {
            Ok(raw) => {
                // SAFETY: it was just made.
                let file = fs::File::from(unsafe { owned(raw) });
                return same(&io::read_to_string(file)?.into_bytes(), canaries.get("secret")?);
            }
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}
