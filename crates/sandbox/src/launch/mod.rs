//! Starts one process from a [`Plan`]: the parent's part. What the child does is in `child.rs`, in order.

mod child;
mod determined;
mod effective;
mod executed;
mod init;
mod mounts;
mod overlay;
mod part;
mod sealed;
mod user_names;
mod watch;

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};
use thiserror::Error;

use crate::cgroup::Group;
use crate::fdpass::{Channel, PassError};
use crate::features::Features;
use crate::guard::{Enforced, Guard, Missing};
use crate::plan::{Executable, Mount, Plan, PlanError};
use crate::{
    landlock,
    sys::{self, Forked},
};

use child::Report;
pub use effective::{Effective, OF_THE_HOUSE, prepare};
pub use init::{EXECUTED_FROM, Program, Told};
pub use part::{Part, Parts};
pub use watch::{Given, Ready, Watch, Watcher};

/// A launch that takes longer hangs on a path (a dead network file system); the child is killed. Ordinary launches
/// take 1 to 4 ms.
pub const LAUNCH_TIMEOUT_MS: u32 = 5_000;

/// What the child was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    Fork,
    Map,
    Cgroup,
    Wait,
    Signals,
    Propagation,
    Sources,
    CgroupNamespace,
    Score,
    Priority,
    HostName,
    Loopback,
    Identity,
    Root,
    Mount,
    Mask,
    Pivot,
    ReadOnlyRoot,
    Directory,
    Open,
    NoNewPrivileges,
    Capabilities,
    ParentDeath,
    Init,
    Limits,
    Landlock,
    Descriptors,
    Terminal,
    Seccomp,
    Execute,
    Determinism,
    Datagrams,
    UserNames,
}

impl Step {
    const ALL: [Step; 33] = [
        Step::Fork,
        Step::Map,
        Step::Cgroup,
        Step::Wait,
        Step::Signals,
        Step::Propagation,
        Step::Sources,
        Step::CgroupNamespace,
        Step::Score,
        Step::Priority,
        Step::HostName,
        Step::Loopback,
        Step::Identity,
        Step::Root,
        Step::Mount,
        Step::Mask,
        Step::Pivot,
        Step::ReadOnlyRoot,
        Step::Directory,
        Step::Open,
        Step::NoNewPrivileges,
        Step::Capabilities,
        Step::ParentDeath,
        Step::Init,
        Step::Limits,
        Step::Landlock,
        Step::Descriptors,
        Step::Terminal,
        Step::Seccomp,
        Step::Execute,
        Step::Determinism,
        Step::Datagrams,
        Step::UserNames,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Step::Fork => "fork",
            Step::Map => "map ids",
            Step::Cgroup => "enter cgroup",
            Step::Wait => "wait for parent",
            Step::Signals => "reset signals",
            Step::Propagation => "make mounts private",
            Step::Sources => "open mount source",
            Step::CgroupNamespace => "unshare cgroup namespace",
            Step::Score => "set oom score",
            Step::Priority => "set priority",
            Step::HostName => "set host name",
            Step::Loopback => "bring loopback up",
            Step::Identity => "take identity",
            Step::Root => "make root",
            Step::Mount => "mount",
            Step::Mask => "mask path",
            Step::Pivot => "pivot root",
            Step::ReadOnlyRoot => "make root read-only",
            Step::Directory => "enter working directory",
            Step::Open => "open executable",
            Step::Limits => "set limits",
            Step::NoNewPrivileges => "set no_new_privs",
            Step::Capabilities => "drop capabilities",
            Step::ParentDeath => "tie life to parent",
            Step::Init => "fork behind init",
            Step::Landlock => "enter landlock",
            Step::Descriptors => "place descriptors",
            Step::Terminal => "take terminal",
            Step::Seccomp => "load system call filter",
            Step::Execute => "execute",
            Step::Determinism => "fix what a job could see",
            Step::Datagrams => "make devices for datagrams",
            Step::UserNames => "name the user",
        }
    }
}

/// Why nothing runs. Whatever the reason, no process is left.
#[derive(Debug, Error)]
pub enum LaunchError {
    #[error("the plan is refused: {0}")]
    Plan(#[from] PlanError),
    #[error("the plan requires {}, which cannot be had: {}", .0.guard, .0.why)]
    Required(Missing),
    #[error(
        "launching from a process with several threads would copy locks that nobody releases; fork from one thread"
    )]
    Threads,
    #[error("{} failed on {on}: {cause}", .step.name())]
    Step { step: Step, on: String, cause: io::Error },
    #[error("no answer from the child within {LAUNCH_TIMEOUT_MS} ms; it was killed")]
    Timeout,
    #[error("the launcher could not talk with its child")]
    Channel(#[source] io::Error),
}

impl LaunchError {
    /// Step and errno for a message; ("plan", 22) and the like where no step was reached.
    #[must_use]
    pub fn step_and_errno(&self) -> (&'static str, i32) {
        match self {
            LaunchError::Plan(_) => ("check plan", libc::EINVAL),
            LaunchError::Required(_) => ("check guards", libc::EOPNOTSUPP),
            LaunchError::Threads => ("check threads", libc::EBUSY),
            LaunchError::Step { step, cause, .. } => (step.name(), cause.raw_os_error().unwrap_or(libc::EIO)),
            LaunchError::Timeout => ("wait for child", libc::ETIMEDOUT),
            LaunchError::Channel(cause) => ("talk with child", cause.raw_os_error().unwrap_or(libc::EIO)),
        }
    }
}

/// A process that has passed `execve`.
#[derive(Debug)]
pub struct Launched {
    /// The one to be reaped: the init, if the plan has one.
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// What stands behind the init.
    pub program: Option<Program>,
    /// Where the calls named by the plan are shown; whoever holds it must answer them.
    pub listener: Option<OwnedFd>,
    pub missing: Vec<Missing>,
    pub enforced: Vec<Enforced>,
}

/// What the child takes with it, made before the fork.
struct Prepared<'a> {
    plan: &'a Plan,
    effective: &'a Effective,
    slots: &'a [OwnedFd],
    /// Of the cgroups that the child joins.
    entrances: Vec<File>,
    environment: Vec<CString>,
    filter: Vec<libc::sock_filter>,
    /// What goes on instead of an image.
    part: Option<Part>,
    /// What answers in the init.
    watch: Option<Watch>,
}

/// Starts what the plan says. `slots` are the descriptors that its numbers mean; `group` is the cgroup made for it.
/// Blocks until the child has executed, at most [`LAUNCH_TIMEOUT_MS`]. The process is the caller's to reap.
pub fn launch(
    plan: &Plan,
    slots: &[OwnedFd],
    features: &Features,
    group: Option<&Group>,
) -> Result<Launched, LaunchError> {
    launch_from(plan, slots, features, group, None)
}

/// The same by a launcher that has parts: where the plan is of one, the child goes on as it and executes nothing.
pub fn launch_from(
    plan: &Plan,
    slots: &[OwnedFd],
    features: &Features,
    group: Option<&Group>,
    parts: Option<Parts>,
) -> Result<Launched, LaunchError> {
    plan.validate(slots.len())?;
    let effective = prepare(plan, features, group);
    let lacks = |missing: &&Missing| {
        missing.whole && plan.required.contains(missing.guard) && !plan.disabled.contains(missing.guard)
    };
    if let Some(missing) = effective.missing.iter().find(lacks) {
        return Err(LaunchError::Required(missing.clone()));
    }
    if let Some(watched) = &plan.watched {
        can_watch(&effective, parts.is_some(), watched.leads_out)?;
    }
    if !sys::has_one_thread() {
        return Err(LaunchError::Threads);
    }
    let group = group.filter(|_| effective.cgroup);
    let entrances = group.map_or(Ok(Vec::new()), Group::entrances);
    let entrances = entrances.map_err(|cause| failed(Step::Cgroup, &plan.label, cause))?;
    let prepared = Prepared {
        plan,
        effective: &effective,
        slots,
        entrances,
        environment: strings(plan.environment.iter().map(|(name, value)| format!("{name}={value}")))?,
        filter: effective.seccomp.as_ref().map(crate::seccomp::assemble).unwrap_or_default(),
        part: parts.filter(|_| plan.part).map(|parts| parts.part),
        watch: parts.map(|parts| parts.watch),
    };
    let (ours, theirs) = Channel::pair().map_err(LaunchError::Channel)?;
    let into = group.and_then(Group::unified_folder);
    let flags = effective.clone_flags();
    let mut to_move = None;
    // SAFETY: this process has one thread (checked above).
    let forked = match unsafe { sys::fork(flags, into) } {
        // Some kernels refuse birth inside a v2 group that they let one move into.
        Err(error) if into.is_some() && error.raw_os_error() != Some(libc::EPERM) => {
            to_move = group;
            // SAFETY: as above.
            unsafe { sys::fork(flags, None) }
        }
        result => result,
    };
    match forked.map_err(|cause| LaunchError::Step { step: Step::Fork, on: effective.describe(), cause })? {
        Forked::Child => {
            drop(ours);
            child::run(&prepared, theirs)
        }
        Forked::Parent { pid, pidfd } => {
            drop(theirs);
            let result = attend(&effective, to_move, ours, pid, plan).and_then(|attended| {
                let settled = if plan.deterministic { determined::settle(pid) } else { Ok(()) };
                settled.map_err(|cause| failed(Step::Determinism, &plan.label, cause))?;
                Ok(attended)
            });
            match result {
                Ok(Attended { listener, program }) => Ok(Launched {
                    pid,
                    pidfd,
                    program,
                    listener,
                    missing: effective.missing,
                    enforced: effective.enforced,
                }),
                Err(error) => {
                    // It may have ended by itself; then there is only the reaping left.
                    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                    let _ = sys::wait_for(pid);
                    Err(error)
                }
            }
        }
    }
}

/// What goes out is held by Landlock beside the filter: a program that is quick enough could else make the kernel connect a
/// socket that it was handed.
fn can_watch(effective: &Effective, has_parts: bool, leads_out: bool) -> Result<(), LaunchError> {
    let lacks = |guard, why: &str| Err(LaunchError::Required(Missing::whole(guard, why)));
    if !has_parts {
        return lacks(Guard::Seccomp, "this launcher has nothing that answers for calls");
    }
    if effective.seccomp.as_ref().is_none_or(|seccomp| !seccomp.has_listener()) {
        return lacks(Guard::Seccomp, "the kernel shows no system calls (seccomp user notification)");
    }
    if leads_out && effective.landlock_abi < landlock::TCP_ABI {
        return lacks(Guard::Landlock, "it cannot hold a way out: that needs Landlock ABI 4 (Linux 6.7)");
    }
    if !effective.namespaces.net || !effective.namespaces.pid {
        return lacks(Guard::Netns, "a program whose calls are answered has namespaces of its own");
    }
    Ok(())
}

fn strings(texts: impl Iterator<Item = String>) -> Result<Vec<CString>, LaunchError> {
    texts.map(|text| CString::new(text).map_err(|_| PlanError::Zero { what: "an argument" }.into())).collect()
}

fn failed(step: Step, on: &str, cause: io::Error) -> LaunchError {
    LaunchError::Step { step, on: on.to_owned(), cause }
}

/// What a child has brought by the end of its preparations.
#[derive(Debug, Default)]
struct Attended {
    listener: Option<OwnedFd>,
    program: Option<Program>,
}

/// Maps ids, moves the child into its group if it was not born there, lets it go, and waits for the end of its
/// preparations.
fn attend(
    effective: &Effective,
    to_move: Option<&Group>,
    channel: Channel,
    pid: i32,
    plan: &Plan,
) -> Result<Attended, LaunchError> {
    if effective.namespaces.user {
        for (file, text) in effective.id_maps() {
            let path = format!("/proc/{pid}/{file}");
            fs::write(&path, text).map_err(|cause| failed(Step::Map, &path, cause))?;
        }
    }
    if let Some(group) = to_move {
        group.move_into_unified(pid).map_err(|cause| failed(Step::Cgroup, &plan.label, cause))?;
    }
    if effective.raised_by_parent() {
        rustix::process::setpriority_process(rustix::process::Pid::from_raw(pid), effective.nice)
            .map_err(|cause| failed(Step::Priority, &plan.label, cause.into()))?;
    }
    channel.send(b"go", &[]).map_err(channel_error)?;
    await_child(channel, plan)
}

fn await_child(channel: Channel, plan: &Plan) -> Result<Attended, LaunchError> {
    let mut listener = None;
    let mut buffer = [0; child::REPORT_BYTES];
    let mut fds = Vec::new();
    loop {
        let mut polled = vec![PollFd::from_borrowed_fd(channel.as_fd(), PollFlags::IN)];
        // A job's own start is the first call that its filter shows.
        let shown = listener.as_ref().filter(|_| plan.deterministic);
        polled.extend(shown.map(|listener: &OwnedFd| PollFd::new(listener, PollFlags::IN)));
        let timeout = Timespec {
            tv_sec: i64::from(LAUNCH_TIMEOUT_MS / 1000),
            tv_nsec: i64::from(LAUNCH_TIMEOUT_MS % 1000) * 1_000_000,
        };
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) => return Err(LaunchError::Timeout),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(LaunchError::Channel(error.into())),
        }
        if polled.get(1).is_some_and(|polled| polled.revents().contains(PollFlags::IN)) {
            drop(polled);
            determined::let_start(shown).map_err(LaunchError::Channel)?;
            continue;
        }
        match channel.receive(&mut buffer, &mut fds) {
            // Close-on-exec closed it: the image runs.
            Err(PassError::Closed) if !plan.init => return Ok(Attended { listener, program: None }),
            Err(error) => return Err(channel_error(error)),
            Ok(_) => match child::decode_report(&buffer) {
                Report::Listener => listener = fds.pop(),
                Report::Failed { step, detail, errno } => {
                    let on = subject(plan, step, detail);
                    return Err(LaunchError::Step { step, on, cause: io::Error::from_raw_os_error(errno) });
                }
                Report::Started => {
                    let program = Program::new(fds.pop(), channel).map_err(LaunchError::Channel)?;
                    return Ok(Attended { listener, program: Some(program) });
                }
                // Too early to be anything but the end of a program that has said why.
                Report::Ended(_) | Report::Settled | Report::Done { .. } => {}
            },
        }
    }
}

fn channel_error(error: PassError) -> LaunchError {
    LaunchError::Channel(match error {
        PassError::Io(cause) => cause,
        other => io::Error::other(other.to_string()),
    })
}

/// On what a step worked, for people.
fn subject(plan: &Plan, step: Step, detail: u16) -> String {
    let index = usize::from(detail);
    let text = match step {
        Step::Sources | Step::Mount => plan.mounts.get(index).map(|mount| match mount {
            Mount::Overlay { .. } => format!("{mount:?} ({})", overlay::HINT),
            mount => format!("{mount:?}"),
        }),
        Step::Mask => plan.masked.iter().chain(&plan.read_only).nth(index).cloned(),
        Step::Limits => plan.rlimits.get(index).map(|limit| format!("{limit:?}")),
        Step::Descriptors => plan.descriptors.get(index).map(|descriptor| format!("{descriptor:?}")),
        Step::Directory => Some(plan.working_directory.clone()),
        // What runs before the program came first.
        Step::Execute | Step::Open if plan.before > 0 => {
            plan.commands.first().map(|command| command.path.clone())
        }
        Step::Execute | Step::Open => Some(match (&plan.executable, plan.arguments.first()) {
            (Executable::Path(path), _) => path.clone(),
            (Executable::Slot(slot), Some(name)) => format!("{name} (the image in slot {slot})"),
            (Executable::Slot(slot), None) => format!("the image in slot {slot}"),
        }),
        _ => None,
    };
    text.unwrap_or_else(|| plan.label.clone())
}

/// The second stage: starts the program of a plan inside the namespaces that exist already (a monitor calls it as
/// PID 1 of them). No namespace, mount or cgroup is made; everything of the process itself is.
pub fn inner(plan: &Plan, slots: &[OwnedFd], features: &Features) -> Result<Launched, LaunchError> {
    let mut plan = plan.clone().inner();
    plan.required = crate::guard::GuardSet::of(
        &plan
            .required
            .iter()
            .filter(|guard| !effective::OF_THE_HOUSE.contains(guard))
            .collect::<Vec<Guard>>(),
    );
    launch(&plan, slots, features, None)
}

/// Duplicates of borrowed descriptors, for callers that keep theirs.
pub fn duplicate_all(fds: &[BorrowedFd<'_>]) -> io::Result<Vec<OwnedFd>> {
    fds.iter().map(BorrowedFd::try_clone_to_owned).collect()
}
