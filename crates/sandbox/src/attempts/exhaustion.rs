//! More than the program's share, or less for others. Each stops by itself soon after it has passed its limit.

use std::fs;
use std::io::{self, Write};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::calls;
use super::{Attempt, Canaries, Failure, held};
use crate::guard::Guard::{Cgroup, Landlock, Mountns, Pidns, Rlimits};

/// Above the 64 that a program has unless it is given more.
const PROCESSES: usize = 100;
/// Above the 256 MiB that a program has unless it is given more.
const MEMORY_MIB: usize = 320;
/// Above the 256 that a program has unless it is given more.
const FILES: usize = 300;
/// Above the 64 MiB of a private `/dev/shm`.
const SHARED_MIB: usize = 72;
/// Above the 512 MiB of a private `/tmp`.
const TEMPORARY_BYTES: u64 = 520 << 20;
const MIB: usize = 1 << 20;

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new("fork_without_end", "starts more processes than it may", &[Cgroup], fork),
    // Where no group counts memory, the limit of address space stands in.
    Attempt::new("take_all_memory", "uses more memory than it may", &[Cgroup, Rlimits], memory),
    Attempt::new("open_without_end", "opens more files than it may", &[Rlimits], files),
    Attempt::new("fill_shared_memory", "fills the host's /dev/shm", &[Mountns, Landlock], shared_memory),
    Attempt::new("thread_without_end", "starts more threads than it may", &[Cgroup], threads),
    Attempt::new("pipe_without_end", "makes more pipes than it may", &[Rlimits], |_| {
        let made: io::Result<Vec<_>> = (0..FILES / 2 + 1).map(|_| io::pipe()).collect();
        made?;
        Ok(())
    }),
    Attempt::new("leave_a_core_file", "may leave an image of its memory on the host", &[Rlimits], core_file),
    Attempt::new("fill_the_temporary_files", "fills the host's /tmp", &[Mountns, Landlock], temporary),
    Attempt::new("starve_a_process", "lowers the limits of a process of the user", &[Pidns], starve),
    Attempt::new("slow_a_process", "lowers the priority of a process of the user", &[Pidns], slow),
];

fn fork(_: &Canaries) -> Result<(), Failure> {
    let mut children = Vec::new();
    let mut result = Ok(());
    while children.len() < PROCESSES && result.is_ok() {
        let child = calls::spawn(|| {
            std::thread::sleep(Duration::from_secs(5));
            Ok(())
        });
        result = child.map(|child| children.push(child));
    }
    children.iter().for_each(|child| calls::kill(*child));
    children.iter().for_each(|child| drop(calls::wait(*child)));
    Ok(result?)
}

/// They end with the child in which they are.
fn threads(_: &Canaries) -> Result<(), Failure> {
    calls::in_child(|| {
        for _ in 0..PROCESSES {
            std::thread::Builder::new().stack_size(64 << 10).spawn(|| {
                std::thread::sleep(Duration::from_secs(5));
            })?;
        }
        Ok(())
    })
}

fn core_file(_: &Canaries) -> Result<(), Failure> {
    let limits = rustix::process::getrlimit(Resource::Core);
    // No number is no limit.
    if limits.maximum == Some(0) { Err(held("its core files have no bytes")) } else { Ok(()) }
}

/// Reserved at once, not written; let go of in the end.
fn temporary(_: &Canaries) -> Result<(), Failure> {
    let path = format!("/tmp/bailiwick-filled-{}", std::process::id());
    let file = fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
    let reserved = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, TEMPORARY_BYTES);
    fs::remove_file(&path)?;
    Ok(reserved?)
}

/// In a child, which the kernel may end.
fn memory(_: &Canaries) -> Result<(), Failure> {
    let child = calls::spawn(|| {
        let filling = vec![1; MIB];
        let mut taken: Vec<Vec<u8>> = Vec::new();
        for _ in 0..MEMORY_MIB {
            let mut piece: Vec<u8> = Vec::new();
            piece.try_reserve_exact(MIB).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
            piece.extend_from_slice(&filling);
            taken.push(piece);
        }
        if taken.iter().all(|piece| piece.first() == Some(&1)) { Ok(()) } else { Err(held("lost memory")) }
    })?;
    calls::result(calls::wait(child)?)
}

fn files(_: &Canaries) -> Result<(), Failure> {
    let opened: io::Result<Vec<fs::File>> = (0..FILES).map(|_| fs::File::open("/dev/null")).collect();
    opened?;
    Ok(())
}

fn shared_memory(_: &Canaries) -> Result<(), Failure> {
    let path = format!("/dev/shm/bailiwick-filled-{}", std::process::id());
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
    let piece = vec![1u8; MIB];
    let filled = (0..SHARED_MIB).try_for_each(|_| file.write_all(&piece));
    fs::remove_file(&path)?;
    Ok(filled?)
}

fn process(canaries: &Canaries) -> Result<Pid, Failure> {
    Pid::from_raw(canaries.number("process")?).ok_or(Failure::Absent("process"))
}

fn starve(canaries: &Canaries) -> Result<(), Failure> {
    let limits = Rlimit { current: Some(8), maximum: Some(8) };
    prlimit(Some(process(canaries)?), Resource::Nofile, limits)?;
    Ok(())
}

fn slow(canaries: &Canaries) -> Result<(), Failure> {
    Ok(rustix::process::setpriority_process(Some(process(canaries)?), 19)?)
}
