//! What the tests of this crate share: a plan for the probe, and a run of the stage with a time limit.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use sandbox::seccomp::Profile;
use sandbox::{Descriptor, Executable, Guard, Mount, Plan};

/// Every stage ends long before; a test that hangs must not.
const STAGE_TIMEOUT: Duration = Duration::from_secs(30);
pub(crate) const NOBODY: u32 = 65534;

/// Who launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum As {
    Root,
    Nobody,
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Both launchers where the tests run as root, else the one there is.
pub(crate) fn launchers() -> &'static [As] {
    if is_root() { &[As::Root, As::Nobody] } else { &[As::Nobody] }
}

/// A closed plan with `/proc`, `/dev` and a private `/tmp` that runs the probe with these words.
pub(crate) fn probe(words: &str) -> Plan {
    let mut plan = Plan::new("probe", Executable::Slot(0), Profile::Program).with_mounts(vec![
        Mount::Proc,
        Mount::Dev,
        Mount::Tmpfs { target: "/tmp".to_owned(), size_bytes_max: 1 << 20, mode: 0o1777 },
    ]);
    plan.arguments = ["probe", "probe"].into_iter().chain(words.split(' ')).map(str::to_owned).collect();
    plan.descriptors = (0..3).map(|n| Descriptor { slot: n + 1, target: n }).collect();
    plan.required =
        [Guard::Mountns, Guard::Pidns, Guard::Netns].into_iter().fold(plan.required, sandbox::GuardSet::with);
    plan
}

/// The same with the host's programs, and a shell that runs this script.
pub(crate) fn shell(script: &str) -> Plan {
    let plan = probe("");
    let mut mounts = plan.mounts.clone();
    mounts.extend(["/usr", "/bin", "/lib", "/lib64"].map(|path| Mount::Bind {
        source: path.to_owned(),
        target: path.to_owned(),
        writable: false,
        optional: true,
    }));
    let mut plan = plan.with_mounts(mounts);
    plan.executable = Executable::Path("/bin/sh".to_owned());
    plan.arguments = ["sh", "-c", script].map(str::to_owned).to_vec();
    plan.environment = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    plan
}

pub(crate) fn run(launcher: As, plan: &Plan, options: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox_stage"));
    command.arg("launch").args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).env_clear();
    if launcher == As::Nobody && is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut child = command.spawn().expect("the stage starts");
    child.stdin.take().expect("piped").write_all(&plan.encode()).expect("the stage reads its plan");
    let ended = || child.try_wait().expect("a child");
    if sandbox::wait_for(STAGE_TIMEOUT, Duration::from_millis(3), ended).is_none() {
        child.kill().expect("a child");
        panic!("the stage did not end");
    }
    let mut text = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
    text
}

/// The line that starts so, without its start.
pub(crate) fn line<'t>(text: &'t str, start: &str) -> &'t str {
    text.lines()
        .find_map(|line| line.strip_prefix(start))
        .unwrap_or_else(|| panic!("no line {start:?} in:\n{text}"))
        .trim()
}
