//! What `/proc` shows of one process to another: its memory, its descriptors, its folders.

use std::fs;
use std::os::unix::fs::FileExt;

use super::{Attempt, Canaries, Failure, TARGET, Way, held, same};
use crate::guard::Guard::{self, Landlock, Pidns, Userns};

/// The kernel asks for the right to trace.
const LIKE_TRACING: &[Guard] = &[Pidns, Userns, Landlock];
const THE_MONITOR_ITSELF: Way =
    Way::Never("the monitor forbids inspection by itself, and no guard can be switched off for it");

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new("find_a_process", "finds a process of the user among all", &[Pidns], find),
    Attempt::new(
        "read_a_memory_map",
        "learns where the memory of a process of the user lies",
        LIKE_TRACING,
        |canaries| look(canaries, "maps"),
    ),
    Attempt::new(
        "read_the_auxiliary_vector",
        "learns the random bytes that a process of the user was started with",
        LIKE_TRACING,
        |canaries| look(canaries, "auxv"),
    ),
    Attempt::new(
        "read_a_stopped_call",
        "learns in which system call a process of the user waits, and its arguments",
        LIKE_TRACING,
        |canaries| look(canaries, "syscall"),
    ),
    Attempt::new("read_memory_by_proc", "reads the memory of a process of the user", LIKE_TRACING, memory),
    Attempt::new("write_memory_by_proc", "changes the memory of a process of the user", LIKE_TRACING, change),
    Attempt::new(
        "reopen_a_descriptor",
        "opens what a descriptor of a process of the user leads to",
        LIKE_TRACING,
        reopen,
    ),
    Attempt::new(
        "walk_through_a_working_folder",
        "reads a file of the user in the folder where one of their processes stands",
        LIKE_TRACING,
        working_folder,
    ),
    Attempt::new(
        "learn_what_a_process_runs",
        "learns the image of a process of the user",
        LIKE_TRACING,
        image,
    ),
    Attempt::new(
        "read_a_status",
        "learns the parent, the groups and the rights of a process of the user",
        &[Pidns],
        |canaries| look(canaries, "status"),
    ),
    Attempt::new(
        "read_the_monitors_environment",
        "reads the environment of its monitor",
        LIKE_TRACING,
        |_| own_monitor("environ"),
    )
    .root(THE_MONITOR_ITSELF)
    .rootless(THE_MONITOR_ITSELF)
    .inside_only(),
    Attempt::new("walk_through_the_monitors_root", "reads by the root of its monitor", LIKE_TRACING, |_| {
        own_monitor("root/etc/passwd")
    })
    .root(THE_MONITOR_ITSELF)
    .rootless(THE_MONITOR_ITSELF)
    .inside_only(),
    Attempt::new("learn_the_monitors_files", "learns what its monitor has open", LIKE_TRACING, |_| {
        fs::read_link("/proc/1/fd/0")?;
        Ok(())
    })
    .root(THE_MONITOR_ITSELF)
    .rootless(THE_MONITOR_ITSELF)
    .inside_only(),
    Attempt::new(
        "open_the_monitors_image",
        "opens the image that its monitor runs, to change it when it has ended",
        LIKE_TRACING,
        |_| {
            fs::File::open("/proc/1/exe")?;
            Ok(())
        },
    )
    .root(THE_MONITOR_ITSELF)
    .rootless(THE_MONITOR_ITSELF)
    .inside_only(),
];

fn path(canaries: &Canaries, file: &str) -> Result<String, Failure> {
    Ok(format!("/proc/{}/{file}", canaries.get("process")?))
}

/// Something is there; nothing is an answer to who may not look.
fn look(canaries: &Canaries, file: &str) -> Result<(), Failure> {
    if fs::read(path(canaries, file)?)?.is_empty() { Err(held("an empty file")) } else { Ok(()) }
}

fn own_monitor(file: &str) -> Result<(), Failure> {
    fs::read(format!("/proc/1/{file}"))?;
    Ok(())
}

fn find(_: &Canaries) -> Result<(), Failure> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.split(|byte| *byte == 0).any(|word| word == TARGET.as_bytes()) {
            return Ok(());
        }
    }
    Err(held("no such process"))
}

fn memory(canaries: &Canaries) -> Result<(), Failure> {
    let secret = canaries.get("secret")?;
    let mut found = vec![0; secret.len()];
    fs::File::open(path(canaries, "mem")?)?.read_exact_at(&mut found, canaries.number("address")?)?;
    same(&found, secret)
}

/// The same bytes again.
fn change(canaries: &Canaries) -> Result<(), Failure> {
    let memory = fs::OpenOptions::new().write(true).open(path(canaries, "mem")?)?;
    Ok(memory.write_all_at(canaries.get("secret")?.as_bytes(), canaries.number("address")?)?)
}

fn reopen(canaries: &Canaries) -> Result<(), Failure> {
    let descriptor = format!("fd/{}", canaries.get("descriptor")?);
    same(&fs::read(path(canaries, &descriptor)?)?, canaries.get("secret")?)
}

fn working_folder(canaries: &Canaries) -> Result<(), Failure> {
    same(&fs::read(path(canaries, "cwd/secret")?)?, canaries.get("secret")?)
}

fn image(canaries: &Canaries) -> Result<(), Failure> {
    fs::read_link(path(canaries, "exe")?)?;
    Ok(())
}
