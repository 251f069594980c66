//! `/proc` as a way to other processes and to the kernel's settings.

use std::fs;

use super::canary::SECRET_VARIABLE;
use super::{Attempt, Canaries, Failure, TARGET, Way, held, same};
use crate::guard::Guard::{Landlock, Mountns, Pidns, Userns};

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new(
        "read_a_command_line",
        "reads the command line of a process of the user",
        &[Pidns],
        command_line,
    ),
    Attempt::new(
        "read_an_environment",
        "reads the environment of a process of the user",
        &[Pidns, Userns, Landlock],
        environment,
    ),
    Attempt::new(
        "walk_through_a_root_link",
        "reads a file of the user through the root of one of their processes",
        &[Pidns, Userns, Landlock],
        root_link,
    ),
    Attempt::new(
        "offer_a_process_to_the_oom_killer",
        "raises the oom score of a process",
        &[Pidns],
        oom_score,
    ),
    Attempt::new("open_a_kernel_setting", "opens a setting of the kernel for writing", &[Mountns], setting)
        .rootless(Way::Never("the host lets only root change its settings, so no user can lose them")),
    Attempt::new("open_the_monitors_memory", "opens the memory of its own monitor", &[Landlock], monitor)
        .root(Way::Never("the monitor forbids inspection by itself, and no guard can be switched off for it"))
        .rootless(Way::Never(
            "the monitor forbids inspection by itself, and no guard can be switched off for it",
        ))
        .inside_only(),
];

fn read(canaries: &Canaries, file: &str) -> Result<Vec<u8>, Failure> {
    Ok(fs::read(format!("/proc/{}/{file}", canaries.get("process")?))?)
}

fn command_line(canaries: &Canaries) -> Result<(), Failure> {
    let text = read(canaries, "cmdline")?;
    let found = text.split(|byte| *byte == 0).any(|word| word == TARGET.as_bytes());
    if found { Ok(()) } else { Err(held("another process")) }
}

fn environment(canaries: &Canaries) -> Result<(), Failure> {
    let text = read(canaries, "environ")?;
    let expected = format!("{SECRET_VARIABLE}={}", canaries.get("secret")?);
    let found = text.split(|byte| *byte == 0).any(|word| word == expected.as_bytes());
    if found { Ok(()) } else { Err(held("another environment")) }
}

fn root_link(canaries: &Canaries) -> Result<(), Failure> {
    let file = canaries.file("secret")?;
    let found = read(canaries, &format!("root{}", file.display()))?;
    same(&found, canaries.get("secret")?)
}

fn oom_score(canaries: &Canaries) -> Result<(), Failure> {
    Ok(fs::write(format!("/proc/{}/oom_score_adj", canaries.get("process")?), "500")?)
}

/// Opened and closed; nothing is written.
fn setting(_: &Canaries) -> Result<(), Failure> {
    fs::OpenOptions::new().write(true).open("/proc/sys/kernel/panic")?;
    Ok(())
}

fn monitor(_: &Canaries) -> Result<(), Failure> {
    fs::OpenOptions::new().read(true).write(true).open("/proc/1/mem")?;
    Ok(())
}
