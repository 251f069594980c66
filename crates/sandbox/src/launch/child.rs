//! The child's part of a launch. It reads from top to bottom in the order in which it happens.
//!
//! The child is a fork of a process with one thread, so it may allocate. It never returns: it executes the image, or
//! reports the step that failed and ends.

use std::convert::Infallible;
use std::ffi::CString;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Resource as KernelResource, Signal};
use rustix::thread::{Gid, Uid};

use super::watch::{Given, Watcher};
use super::{Prepared, Step, determined, executed, init, mounts, part};
use crate::fdpass::{Channel, PassError};
use crate::guard::Guard;
use crate::plan::{
    CAPABILITIES_UNTOUCHED, DESCRIPTOR_TARGET_MAX, Executable, Landlock, Plan, Resource, Watched,
};
use crate::process::ExitStatus;
use crate::{datagram_link, landlock, sys};

/// Descriptors of the launcher stand above every number that a plan can name.
pub(super) const OWN_DESCRIPTORS_MIN: i32 = DESCRIPTOR_TARGET_MAX as i32 + 1;
/// What a failed child ends with; the parent knows from the report.
pub(super) const FAILED: i32 = 127;

/// Tag, step, detail, number.
pub(super) const REPORT_BYTES: usize = 8;
const TAG_FAILED: u8 = b'F';
const TAG_LISTENER: u8 = b'L';
const TAG_STARTED: u8 = b'S';
const TAG_CODE: u8 = b'C';
const TAG_SIGNAL: u8 = b'K';
const TAG_SETTLED: u8 = b'P';
const TAG_DONE_CODE: u8 = b'D';
const TAG_DONE_SIGNAL: u8 = b'd';

/// What the child says to its launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// Nothing runs.
    Failed { step: Step, detail: u16, errno: i32 },
    /// With the descriptor on which calls are shown.
    Listener,
    /// By an init: the program has executed. With its handle.
    Started,
    /// By an init: the program has ended.
    Ended(ExitStatus),
    /// By an init: what was to come before the program is done, or the daemon is there. With the program's handle.
    Settled,
    /// By an init: a command of the plan has ended.
    Done { command: u16, status: ExitStatus },
}

#[derive(Debug)]
pub(super) struct Failure {
    pub(super) step: Step,
    detail: u16,
    pub(super) errno: i32,
}

/// Names the step of an error.
pub(super) trait At<T> {
    fn at(self, step: Step) -> Result<T, Failure>;
    fn at_index(self, step: Step, index: usize) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.at_index(step, 0)
    }

    fn at_index(self, step: Step, index: usize) -> Result<T, Failure> {
        self.map_err(|error| {
            let errno = error.into().raw_os_error().unwrap_or(libc::EIO);
            Failure { step, detail: u16::try_from(index).unwrap_or(u16::MAX), errno }
        })
    }
}

impl Report {
    pub(super) fn encode(self) -> [u8; REPORT_BYTES] {
        let (tag, step, detail, number) = match self {
            Report::Failed { step, detail, errno } => (TAG_FAILED, step as u8, detail, errno),
            Report::Listener => (TAG_LISTENER, 0, 0, 0),
            Report::Started => (TAG_STARTED, 0, 0, 0),
            Report::Ended(ExitStatus::Code(code)) => (TAG_CODE, 0, 0, code),
            Report::Ended(ExitStatus::Signal(signal)) => (TAG_SIGNAL, 0, 0, signal),
            Report::Settled => (TAG_SETTLED, 0, 0, 0),
            Report::Done { command, status: ExitStatus::Code(code) } => (TAG_DONE_CODE, 0, command, code),
            Report::Done { command, status: ExitStatus::Signal(signal) } => {
                (TAG_DONE_SIGNAL, 0, command, signal)
            }
        };
        let ([a, b], [c, d, e, f]) = (detail.to_le_bytes(), number.to_le_bytes());
        [tag, step, a, b, c, d, e, f]
    }
}

pub(super) fn decode_report(report: &[u8; REPORT_BYTES]) -> Report {
    let [tag, step, a, b, c, d, e, f] = *report;
    let number = i32::from_le_bytes([c, d, e, f]);
    let detail = u16::from_le_bytes([a, b]);
    match tag {
        TAG_LISTENER => Report::Listener,
        TAG_STARTED => Report::Started,
        TAG_CODE => Report::Ended(ExitStatus::Code(number)),
        TAG_SIGNAL => Report::Ended(ExitStatus::Signal(number)),
        TAG_SETTLED => Report::Settled,
        TAG_DONE_CODE => Report::Done { command: detail, status: ExitStatus::Code(number) },
        TAG_DONE_SIGNAL => Report::Done { command: detail, status: ExitStatus::Signal(number) },
        _ => {
            let step = Step::ALL.get(usize::from(step)).copied().unwrap_or(Step::Execute);
            Report::Failed { step, detail, errno: number }
        }
    }
}

/// Carries the plan out. Never returns.
pub(super) fn run(prepared: &Prepared<'_>, channel: Channel) -> ! {
    let channel = match sys::duplicate_above(channel.as_fd(), OWN_DESCRIPTORS_MIN) {
        Ok(above) => Channel::from(above),
        Err(_) => channel,
    };
    let Err(Failure { step, detail, errno }) = carry_out(prepared, &channel);
    let _ = channel.send(&Report::Failed { step, detail, errno }.encode(), &[]);
    sys::exit_now(FAILED)
}

fn carry_out(prepared: &Prepared<'_>, channel: &Channel) -> Result<Infallible, Failure> {
    let Prepared { plan, effective, .. } = prepared;
    let namespaces = effective.namespaces;
    sys::reset_signals().at(Step::Signals)?;
    tie_to_parent(prepared, channel)?;
    for mut entrance in &prepared.entrances {
        entrance.write_all(b"0").at(Step::Cgroup)?;
    }
    wait_for_parent(channel).at(Step::Wait)?;
    if plan.init {
        init::show_as("init", &plan.label);
    } else if prepared.part.is_some() {
        init::show_as(part::name(&plan.arguments), &plan.label);
    }
    if plan.new_session {
        // Fails only for a leader of a group, which a fork is not.
        let _ = rustix::process::setsid();
    }
    if namespaces.cgroup {
        sys::unshare_cgroup_namespace().at(Step::CgroupNamespace)?;
    }
    if let Some(score) = effective.oom_score_adj {
        std::fs::write("/proc/self/oom_score_adj", score.to_string()).at(Step::Score)?;
    }
    set_priority(prepared).at(Step::Priority)?;
    let null = open_null(prepared, channel).at(Step::Descriptors)?;
    let sources = if namespaces.mount { mounts::open_sources(prepared)? } else { Vec::new() };
    if namespaces.uts && !plan.host_name.is_empty() {
        rustix::system::sethostname(plan.host_name.as_bytes()).at(Step::HostName)?;
    }
    if namespaces.net && plan.loopback {
        sys::loopback_up().at(Step::Loopback)?;
        if plan.watched.as_ref().is_some_and(|watched| !watched.published.is_empty()) {
            free_ports();
        }
    }
    // Of the init, if it answers; else of the program.
    let mut names = match plan.name_server.filter(|_| namespaces.net) {
        Some(first) => name_server(first).at(Step::Loopback)?,
        None => Vec::new(),
    };
    if let Some(target) = plan.datagrams.filter(|_| namespaces.net) {
        let packets = datagram_link::make().at(Step::Datagrams)?;
        names.push((sys::duplicate_above(packets.as_fd(), OWN_DESCRIPTORS_MIN).at(Step::Datagrams)?, target));
    }
    // In a user namespace the ids come before the mounts, which then belong to them; without one, root mounts.
    if namespaces.user {
        take_identity(prepared).at(Step::Identity)?;
    }
    if namespaces.mount {
        mounts::build(prepared, sources)?;
    }
    if !namespaces.user {
        take_identity(prepared).at(Step::Identity)?;
    }
    enter_directory(&plan.working_directory).at(Step::Directory)?;
    let image = open_image(prepared).at(Step::Open)?;
    let mut kept = duplicate_slots(prepared)?;
    let given = match &plan.watched {
        Some(watched) => Some(given(prepared, watched, names, &kept).at(Step::Descriptors)?),
        None => {
            kept.extend(names);
            None
        }
    };
    if effective.no_new_privs {
        rustix::thread::set_no_new_privs(true).at(Step::NoNewPrivileges)?;
    }
    drop_capabilities(prepared).at(Step::Capabilities)?;
    // Again: a change of ids clears it.
    tie_to_parent(prepared, channel)?;
    let own_pid = plan.own_pid.as_deref();
    if !plan.init {
        return become_image(prepared, channel, image, Start::of_program(plan, own_pid, &kept, &null));
    }
    // One domain for all that stands behind the init: commands may signal the program, and nobody outside.
    if !plan.commands.is_empty() {
        // Who answers connects in its program's place; the others lose that on their way (`become_image`).
        enter_landlock(prepared, &image, plan.watched.is_some())?;
    }
    let mut needed: Vec<BorrowedFd<'_>> = vec![image.file.as_fd(), null.as_fd()];
    needed.extend(kept.iter().map(|(fd, _)| fd.as_fd()));
    let watcher = given.map(|given| watcher(prepared, given)).transpose().at(Step::Init)?;
    let log = kept.iter().find(|(_, target)| *target == 2).map(|(fd, _)| fd.as_fd());
    let (becomes, shown) =
        init::stay_before(plan, channel, init::Standard { null: null.as_fd(), log }, &needed, watcher)
            .at(Step::Init)?;
    let role = match becomes {
        init::Becomes::Planned(role) => role,
        init::Becomes::Asked(asked) => executed::become_it(prepared, channel, shown.as_ref(), &asked),
    };
    let shown = shown.as_ref();
    let become_it = || {
        // From here on this is the init's child.
        tie_to_parent(prepared, channel)?;
        if plan.new_session {
            let _ = rustix::process::setsid();
        }
        match role.command(plan) {
            None => {
                let start = Start { shown, ..Start::of_program(plan, own_pid, &kept, &null) };
                become_image(prepared, channel, image, start)
            }
            Some(command) => {
                let image = open_path(&command.path).at(Step::Open)?;
                let start = Start { shown, ..Start::of_program(plan, None, &kept, &null) };
                become_image(prepared, channel, image, Start { arguments: &command.arguments, ..start })
            }
        }
    };
    let Err(failure) = become_it();
    if role.is_late(plan) {
        // The launcher has gone on; who reads the log learns of it.
        let what = role.command(plan).map_or(plan.label.as_str(), |command| command.path.as_str());
        complain(&kept, what, &failure);
        sys::exit_now(FAILED);
    }
    Err(failure)
}

/// What an image is started with.
pub(super) struct Start<'a> {
    /// With `argv[0]`.
    pub(super) arguments: &'a [String],
    /// None: the plan's.
    pub(super) environment: Option<Vec<CString>>,
    pub(super) own_pid: Option<&'a str>,
    /// Its descriptors, each with its number there.
    pub(super) kept: &'a [(OwnedFd, u32)],
    /// For standard streams that are not among them.
    pub(super) null: &'a OwnedFd,
    pub(super) terminal: bool,
    /// To its init, if that answers the calls that the filter shows.
    pub(super) shown: Option<&'a Channel>,
}

impl<'a> Start<'a> {
    fn of_program(
        plan: &'a Plan,
        own_pid: Option<&'a str>,
        kept: &'a [(OwnedFd, u32)],
        null: &'a OwnedFd,
    ) -> Start<'a> {
        let terminal = plan.controlling_terminal;
        Start { arguments: &plan.arguments, environment: None, own_pid, kept, null, terminal, shown: None }
    }
}

/// The last steps, in the process that is to be the program or one beside it.
pub(super) fn become_image(
    prepared: &Prepared<'_>,
    channel: &Channel,
    image: Image,
    start: Start<'_>,
) -> Result<Infallible, Failure> {
    let Start { arguments, environment, own_pid, kept, null, terminal, shown } = start;
    let plan = prepared.plan;
    if let Some(mask) = plan.umask {
        rustix::process::umask(Mode::from_raw_mode(mask));
    }
    set_limits(prepared)?;
    if plan.commands.is_empty() {
        enter_landlock(prepared, &image, false)?;
    } else if plan.watched.is_some() {
        landlock::refuse_tcp(prepared.effective.landlock_abi).at(Step::Landlock)?;
    }
    place_descriptors(prepared, kept, null)?;
    if terminal {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).at(Step::Terminal)?;
    }
    if image.is_script {
        rustix::io::fcntl_setfd(&image.file, rustix::io::FdFlags::empty()).at(Step::Execute)?;
    }
    let arguments = arguments.iter().map(|text| CString::new(text.as_str())).collect::<Result<Vec<_>, _>>();
    let arguments = arguments.at(Step::Execute)?;
    let environment = environment.unwrap_or_else(|| prepared.environment.clone());
    let environment = with_own_pid(environment, own_pid).at(Step::Execute)?;
    if plan.deterministic {
        determined::fix().at(Step::Determinism)?;
    }
    load_filter(prepared, shown.unwrap_or(channel)).at(Step::Seccomp)?;
    if let Some(part) = prepared.part {
        return part::go_on(prepared, part).at(Step::Execute);
    }
    Err(sys::execute(image.file.as_raw_fd(), &image.path, &arguments, &environment)).at(Step::Execute)
}

/// Only the process itself knows its number in its own pid namespace.
fn with_own_pid(mut environment: Vec<CString>, variable: Option<&str>) -> io::Result<Vec<CString>> {
    if let Some(variable) = variable {
        let pid = rustix::process::getpid().as_raw_nonzero();
        environment.push(CString::new(format!("{variable}={pid}"))?);
    }
    Ok(environment)
}

/// `answers`: with TCP, whatever the plan says.
fn enter_landlock(prepared: &Prepared<'_>, image: &Image, answers: bool) -> Result<(), Failure> {
    let Prepared { plan, effective, .. } = prepared;
    let Some(rules) = plan.landlock.as_ref().filter(|_| effective.landlock_abi > 0) else { return Ok(()) };
    let rules = &Landlock { tcp: rules.tcp || answers, ..rules.clone() };
    landlock::restrict(rules, &effective.landlock_rules, image.file.as_fd(), effective.landlock_abi)
        .at(Step::Landlock)
}

/// One line where the program's errors go.
fn complain(kept: &[(OwnedFd, u32)], what: &str, failure: &Failure) {
    let cause = io::Error::from_raw_os_error(failure.errno);
    let line = format!("bailiwick: {what}: {} failed: {cause}\n", failure.step.name());
    if let Some((log, _)) = kept.iter().find(|(_, target)| *target == 2) {
        let _ = rustix::io::write(log, line.as_bytes());
    }
}

/// The child dies with the process that launched it; if that is already gone, at once. The other end of the channel
/// is held by the parent alone, so its hang-up is the parent's end; `getppid` is 0 across pid namespaces.
pub(super) fn tie_to_parent(prepared: &Prepared<'_>, channel: &Channel) -> Result<(), Failure> {
    if !prepared.plan.dies_with_parent {
        return Ok(());
    }
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).at(Step::ParentDeath)?;
    let mut polled = [PollFd::from_borrowed_fd(channel.as_fd(), PollFlags::empty())];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).at(Step::ParentDeath)?;
    let [polled] = polled;
    if polled.revents().intersects(PollFlags::HUP | PollFlags::ERR) {
        sys::exit_now(FAILED);
    }
    Ok(())
}

fn wait_for_parent(channel: &Channel) -> io::Result<()> {
    let mut buffer = [0; 2];
    match channel.receive(&mut buffer, &mut Vec::new()) {
        Ok(_) => Ok(()),
        Err(PassError::Io(error)) => Err(error),
        // The parent could not do its part, or died.
        Err(_) => sys::exit_now(FAILED),
    }
}

fn set_priority(prepared: &Prepared<'_>) -> io::Result<()> {
    let effective = prepared.effective;
    // A launcher that itself runs lower passes that on: raising it again would need a right.
    let lowers = || Ok::<bool, io::Error>(effective.nice > rustix::process::getpriority_process(None)?);
    if !effective.raised_by_parent() && (effective.nice < 0 || lowers()?) {
        rustix::process::setpriority_process(None, effective.nice)?;
    }
    effective.scheduler.map_or(Ok(()), sys::set_scheduler)
}

/// For standard streams that the plan does not place, and for an init. A job, whose launcher sees no device, has neither: then
/// it is the channel once more, which nobody uses as one and `execve` closes.
fn open_null(prepared: &Prepared<'_>, channel: &Channel) -> io::Result<OwnedFd> {
    let is_placed =
        |standard: u32| prepared.plan.descriptors.iter().any(|descriptor| descriptor.target == standard);
    if !prepared.plan.init && (0..3).all(is_placed) {
        return sys::duplicate_above(channel.as_fd(), OWN_DESCRIPTORS_MIN);
    }
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    sys::duplicate_above(null.as_fd(), OWN_DESCRIPTORS_MIN)
}

/// Takes the ids of the plan and keeps the capabilities for the steps that still need them.
fn take_identity(prepared: &Prepared<'_>) -> io::Result<()> {
    const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
    let effective = prepared.effective;
    let Some((uid, gid)) = effective.take else { return Ok(()) };
    sys::set_securebits(NO_SETUID_FIXUP)?;
    if effective.privileged {
        let groups: Vec<Gid> = effective.groups.iter().map(|group| Gid::from_raw(*group)).collect();
        rustix::thread::set_thread_groups(&groups)?;
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// A link of what runs there already (`/proc/self/fd/N`) may lead to a folder that this process has open and that is
/// no part of the sandbox; the kernel names such a place without a root.
pub(super) fn enter_directory(path: &str) -> io::Result<()> {
    rustix::process::chdir(path)?;
    match rustix::process::getcwd(Vec::new())?.as_bytes().first() {
        Some(b'/') => Ok(()),
        _ => Err(rustix::io::Errno::ACCESS.into()),
    }
}

pub(super) struct Image {
    pub(super) file: OwnedFd,
    /// Empty: the file itself is executed. A script that was named by its path is executed by it.
    path: CString,
    is_script: bool,
}

/// Opens what will run, after the root was changed: a path means the sandbox's own.
fn open_image(prepared: &Prepared<'_>) -> io::Result<Image> {
    match &prepared.plan.executable {
        Executable::Slot(slot) => {
            let file = prepared.slots.get(*slot as usize).ok_or(rustix::io::Errno::BADF)?;
            image_of(file.try_clone()?, None)
        }
        Executable::Path(path) => open_path(path),
    }
}

/// Links of `/proc` to open files are not followed: the launcher's own descriptors lead out of the root that it is in.
pub(super) fn open_path(path: &str) -> io::Result<Image> {
    let open = |flags| {
        let how = ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(rustix::fs::CWD, path, flags | OFlags::CLOEXEC, Mode::empty(), how)
    };
    // Executable but not readable is fine for an ELF image; a pipe must not make the launcher wait.
    let file = open(OFlags::RDONLY | OFlags::NONBLOCK).or_else(|_| open(OFlags::PATH))?;
    if rustix::fs::fstat(&file)?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(rustix::io::Errno::ACCESS.into());
    }
    image_of(file, Some(path))
}

fn image_of(file: OwnedFd, path: Option<&str>) -> io::Result<Image> {
    let file = sys::duplicate_above(file.as_fd(), OWN_DESCRIPTORS_MIN)?;
    let mut start = [0; 2];
    let is_script = rustix::io::pread(&file, &mut start, 0).is_ok() && start == *b"#!";
    match path {
        Some(path) if is_script => Ok(Image { file, path: CString::new(path)?, is_script: false }),
        _ => {
            // The kernel hands the interpreter the name /dev/fd/N.
            if is_script {
                rustix::fs::stat("/dev/fd/0")?;
            }
            Ok(Image { file, path: CString::default(), is_script })
        }
    }
}

/// Copies of the plan's descriptors above all targets, so that placing one cannot close another.
fn duplicate_slots(prepared: &Prepared<'_>) -> Result<Vec<(OwnedFd, u32)>, Failure> {
    let copy = |(index, descriptor): (usize, &crate::plan::Descriptor)| {
        let slot = prepared.slots.get(descriptor.slot as usize).ok_or(rustix::io::Errno::BADF);
        let slot = slot.at_index(Step::Descriptors, index)?;
        let above = sys::duplicate_above(slot.as_fd(), OWN_DESCRIPTORS_MIN);
        Ok((above.at_index(Step::Descriptors, index)?, descriptor.target))
    };
    prepared.plan.descriptors.iter().enumerate().map(copy).collect()
}

/// Of a network that is the program's own every port is its own, as in a container: what is published there may be 80. Where `/proc/sys` is
/// shown read-only it is refused those below 1024, as it is elsewhere.
fn free_ports() {
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
}

/// Who asks for names in this network is answered here. Above the descriptors that a plan can place.
fn name_server(first: u32) -> io::Result<Vec<(OwnedFd, u32)>> {
    const PLACE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);
    const WAITING_MAX: i32 = 16;
    let bound = |kind| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::INET, kind, flags, None)?;
        rustix::net::bind(&socket, &PLACE)?;
        sys::duplicate_above(socket.as_fd(), OWN_DESCRIPTORS_MIN)
    };
    sys::loopback_has_too(datagram_link::OWN_V4)?;
    let (udp, tcp) = (bound(SocketType::DGRAM)?, bound(SocketType::STREAM)?);
    rustix::net::listen(&tcp, WAITING_MAX)?;
    Ok(vec![(udp, first), (tcp, first.saturating_add(1))])
}

/// For the init that answers. Everything stands above the descriptors that a plan can place.
fn given(
    prepared: &Prepared<'_>,
    watched: &Watched,
    names: Vec<(OwnedFd, u32)>,
    kept: &[(OwnedFd, u32)],
) -> io::Result<Given> {
    let taken = |slot: u32| {
        let fd = prepared.slots.get(slot as usize).ok_or(rustix::io::Errno::BADF)?;
        sys::duplicate_above(fd.as_fd(), OWN_DESCRIPTORS_MIN)
    };
    let published = watched.published.iter().map(|published| Ok((taken(published.slot)?, published.port)));
    let mut names = names.into_iter().map(|(fd, _)| fd);
    let pair = names.next().zip(names.next()).map(|(udp, tcp)| [udp, tcp]);
    Ok(Given {
        control: taken(watched.slot)?,
        published: published.collect::<io::Result<_>>()?,
        names: pair,
        packets: names.next(),
        leads_out: watched.leads_out,
        proxy: watched.proxy,
        given_ports: kept.iter().filter_map(|(fd, _)| port_of(fd)).collect(),
    })
}

/// Where a socket of IPv4 or IPv6 listens or is; none of any other descriptor.
fn port_of(fd: &OwnedFd) -> Option<u16> {
    let address = rustix::net::getsockname(fd).ok()?;
    SocketAddr::try_from(address).ok().map(|address| address.port()).filter(|port| *port != 0)
}

fn watcher(prepared: &Prepared<'_>, given: Given) -> io::Result<Box<dyn Watcher>> {
    let watch = prepared.watch.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
    watch(given)
}

/// Everything closes at exec except what the plan placed; standard streams that it did not place are /dev/null.
fn place_descriptors(
    prepared: &Prepared<'_>,
    kept: &[(OwnedFd, u32)],
    null: &OwnedFd,
) -> Result<(), Failure> {
    sys::close_all_on_exec().at(Step::Descriptors)?;
    let put = |fd: BorrowedFd<'_>, target: u32| sys::place(fd, target as i32).at(Step::Descriptors);
    for standard in 0..3 {
        if !prepared.plan.descriptors.iter().any(|descriptor| descriptor.target == standard) {
            put(null.as_fd(), standard)?;
        }
    }
    kept.iter().try_for_each(|(fd, target)| put(fd.as_fd(), *target))
}

fn kernel_resource(resource: Resource) -> KernelResource {
    match resource {
        Resource::OpenFiles => KernelResource::Nofile,
        Resource::Processes => KernelResource::Nproc,
        Resource::AddressSpace => KernelResource::As,
        Resource::CpuSeconds => KernelResource::Cpu,
        Resource::CoreBytes => KernelResource::Core,
        Resource::FileBytes => KernelResource::Fsize,
        Resource::LockedBytes => KernelResource::Memlock,
        Resource::StackBytes => KernelResource::Stack,
    }
}

/// A limit above the hard limit of the launcher becomes that one: stricter than asked is never wrong.
fn set_limits(prepared: &Prepared<'_>) -> Result<(), Failure> {
    for (index, limit) in prepared.effective.rlimits.iter().enumerate() {
        let resource = kernel_resource(limit.resource);
        let now = rustix::process::getrlimit(resource);
        let hard = now.maximum.map_or(limit.hard, |maximum| maximum.min(limit.hard));
        let new = rustix::process::Rlimit { current: Some(limit.soft.min(hard)), maximum: Some(hard) };
        rustix::process::setrlimit(resource, new).at_index(Step::Limits, index)?;
    }
    if !prepared.plan.dumpable && !prepared.plan.disabled.contains(Guard::Rlimits) {
        let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
        rustix::process::setrlimit(KernelResource::Core, none).at(Step::Limits)?;
    }
    Ok(())
}

/// Empties bounding, ambient, inheritable, permitted and effective, and locks the ways back. With the guard off,
/// everything is kept over exec instead, so that the attempt that it stops can succeed.
fn drop_capabilities(prepared: &Prepared<'_>) -> io::Result<()> {
    const SETPCAP: u64 = 1 << 8;
    /// noroot, no setuid fixup, no ambient raise, each locked; keep_caps locked off.
    const LOCKED_DOWN: libc::c_ulong = 0b1110_1111;
    if prepared.plan.capabilities_kept == CAPABILITIES_UNTOUCHED {
        return Ok(());
    }
    let held = sys::effective_capabilities()?;
    let kept = if prepared.effective.caps { prepared.plan.capabilities_kept & held } else { held };
    // Root has them by its id, and is without them once it has become somebody else; what passes exec by itself would
    // stay with a program that keeps root as its saved id only.
    let passed = if prepared.effective.caps && prepared.effective.owner().0 == 0 { 0 } else { kept };
    if held & SETPCAP != 0 {
        sys::drop_bounding_set(kept)?;
        sys::set_capabilities(held, passed)?;
        sys::set_ambient(passed)?;
        if prepared.effective.caps {
            // What keeps some is a program that changes its own ids, and loses them by it as on any system.
            sys::set_securebits(if kept == 0 { LOCKED_DOWN } else { 0 })?;
        }
    }
    // Without no_new_privs the filter can be loaded with CAP_SYS_ADMIN only; the empty bounding set and `noroot` then
    // take everything away at exec.
    if prepared.effective.no_new_privs { sys::set_capabilities(kept, passed) } else { Ok(()) }
}

/// Loads the filter last; the listener goes to the parent before the image runs.
fn load_filter(prepared: &Prepared<'_>, channel: &Channel) -> io::Result<()> {
    let Some(seccomp) = &prepared.effective.seccomp else { return Ok(()) };
    let listener = sys::load_filter(&prepared.filter, seccomp.has_listener())?;
    let Some(listener) = listener else { return Ok(()) };
    let sent = channel.send(&Report::Listener.encode(), &[listener.as_fd()]);
    sent.map_err(|error| io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_survive_encoding() {
        for report in [
            Report::Failed { step: Step::Execute, detail: 300, errno: 13 },
            Report::Listener,
            Report::Started,
            Report::Ended(ExitStatus::Code(137)),
            Report::Ended(ExitStatus::Signal(9)),
            Report::Settled,
            Report::Done { command: 63, status: ExitStatus::Code(2) },
            Report::Done { command: 300, status: ExitStatus::Signal(15) },
        ] {
            assert_eq!(decode_report(&report.encode()), report);
        }
    }

    #[test]
    fn every_step_is_found_by_its_number() {
        for (number, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, number, "{}", step.name());
        }
    }
}
