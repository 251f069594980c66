//! The monitored program: its start, its signals, its end, and what its tree uses.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::linux::fs::MetadataExt,
};

use chain::payload::process::{ExitStatus, ResourceUsage};
use rustix::{
    process::Pid,
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::Winsize,
};
use sandbox::{
    Executable, Features, LaunchError, Launched, Plan, inner,
    process::{ExitStatus as Ended, Reaped, Signal, Usage, pidfd_send_signal},
};

use crate::core::WindowSize;

/// Our ends of the program's standard streams. A terminal is one descriptor for both directions, and has no second
/// stream of output.
pub(crate) struct Streams {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: Option<OwnedFd>,
}

impl Streams {
    /// With the program's ends, which are closed here once it has them.
    fn open(terminal: Option<WindowSize>) -> io::Result<(Self, [OwnedFd; 3])> {
        match terminal {
            Some(size) => Self::terminal(size),
            None => Self::pipes(),
        }
    }

    fn pipes() -> io::Result<(Self, [OwnedFd; 3])> {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (stdin, stdin_ours) = pipe()?;
        let (stdout_ours, stdout) = pipe()?;
        let (stderr_ours, stderr) = pipe()?;
        for ours in [&stdin_ours, &stdout_ours, &stderr_ours] {
            rustix::io::ioctl_fionbio(ours, true)?;
        }
        let ours = Self { stdin: stdin_ours, stdout: stdout_ours, stderr: Some(stderr_ours) };
        Ok((ours, [stdin, stdout, stderr]))
    }

    /// Of the program's own `/dev/pts`: the host's terminals are not involved.
    fn terminal(size: WindowSize) -> io::Result<(Self, [OwnedFd; 3])> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags)?;
        unlockpt(&ours)?;
        set_window(ours.as_fd(), size)?;
        let theirs = ioctl_tiocgptpeer(&ours, flags)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let streams = Self { stdin: ours.try_clone()?, stdout: ours, stderr: None };
        Ok((streams, [theirs.try_clone()?, theirs.try_clone()?, theirs]))
    }
}

/// Tells the terminal's foreground, which redraws itself.
pub(crate) fn set_window(terminal: BorrowedFd<'_>, size: WindowSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

#[derive(Debug)]
pub(crate) struct Program {
    pid: i32,
    pidfd: OwnedFd,
    ended: Option<Ended>,
}

/// What the ended processes of the tree have used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used(Usage);

impl Used {
    pub(crate) fn add(&mut self, usage: Usage) {
        let total = &mut self.0;
        total.user_time_us += usage.user_time_us;
        total.system_time_us += usage.system_time_us;
        total.resident_bytes_max = total.resident_bytes_max.max(usage.resident_bytes_max);
        total.blocks_read += usage.blocks_read;
        total.blocks_written += usage.blocks_written;
    }

    fn cpu_us(&self) -> u64 {
        self.0.user_time_us.saturating_add(self.0.system_time_us)
    }

    pub(crate) fn as_usage(&self) -> ResourceUsage {
        const BLOCK_BYTES: u64 = 512;
        ResourceUsage {
            cpu_time_ns: self.cpu_us().saturating_mul(1000),
            memory_bytes: 0,
            memory_peak_bytes: self.0.resident_bytes_max,
            io_read_bytes: self.0.blocks_read.saturating_mul(BLOCK_BYTES),
            io_write_bytes: self.0.blocks_written.saturating_mul(BLOCK_BYTES),
        }
    }
}

/// What runs is the file that was hashed, whatever stands at the path now.
pub(crate) fn check_image(path: &str, image: &OwnedFd) -> io::Result<()> {
    let shown = fs::metadata(path)?;
    let hashed = rustix::fs::fstat(image)?;
    if (shown.st_dev(), shown.st_ino()) == (hashed.st_dev, hashed.st_ino) {
        return Ok(());
    }
    Err(io::Error::other(format!("{path} is not the image that was hashed")))
}

impl Program {
    /// Forks and executes. The listener comes with the handle if calls are shown.
    pub(crate) fn start(
        plan: &Plan,
        image: &OwnedFd,
        features: &Features,
        terminal: Option<WindowSize>,
    ) -> Result<(Self, Streams, Option<OwnedFd>), LaunchError> {
        let (ours, [stdin, stdout, stderr]) = Streams::open(terminal).map_err(LaunchError::Channel)?;
        let image = image.try_clone().map_err(LaunchError::Channel)?;
        let slots = [image, stdin, stdout, stderr];
        let Launched { pid, pidfd, listener, .. } = inner(plan, &slots, features)?;
        Ok((Self { pid, pidfd, ended: None }, ours, listener))
    }

    pub(crate) fn ended(&self) -> Option<Ended> {
        self.ended
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(self.pidfd.as_fd(), signal)?)
    }

    /// Whether this was it.
    pub(crate) fn has_ended(&mut self, reaped: &Reaped) -> bool {
        let is = reaped.pid == self.pid && self.ended.is_none();
        if is {
            self.ended = Some(reaped.status);
        }
        is
    }

    /// It and what it started in its own group. Its number is its own until it was reaped.
    pub(crate) fn kill_group(&self) {
        if let Some(group) = Pid::from_raw(self.pid).filter(|_| self.ended.is_none()) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
            // One that is not the first of its group yet.
            let _ = self.signal(Signal::KILL);
        }
    }
}

/// 126 and 127 as a shell says them.
pub(crate) fn failed_status(errno: i32) -> ExitStatus {
    let not_found = rustix::io::Errno::NOENT.raw_os_error();
    ExitStatus::Code(if errno == not_found { 127 } else { 126 })
}

/// The name of a script's or program's file for messages.
pub(crate) fn executable(plan: &Plan) -> String {
    match &plan.executable {
        Executable::Path(path) => path.clone(),
        Executable::Slot(_) => plan.label.clone(),
    }
}

/// Every process of this pid namespace but this one. None where `/proc` shows another namespace, the host's: without a
/// pid or mount namespace of its own.
pub(crate) fn others() -> Vec<i32> {
    let shown_as = fs::read_link("/proc/self");
    if std::process::id() != 1 || shown_as.is_ok_and(|link| link.as_os_str() != "1") {
        return Vec::new();
    }
    let Ok(folder) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(|pid| *pid != 1).collect()
}

/// Signals every other process of the namespace. Numbers cannot be used again meanwhile: only this process reaps
/// orphans, and a number that is gone is what is wanted.
pub(crate) fn signal_others(signal: Signal) {
    for pid in others().into_iter().filter_map(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Processor time of the whole tree so far, microseconds.
pub(crate) fn cpu_us(used: &Used) -> u64 {
    let running = counted().map(|one| one.ticks).sum::<u64>();
    used.cpu_us().saturating_add(running.saturating_mul(tick_us()))
}

fn tick_us() -> u64 {
    1_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

/// Threads of the tree, and what it uses and has used; a group may count more, but not every host has one.
pub(crate) fn measure(used: &Used) -> (u32, ResourceUsage) {
    let mut usage = used.as_usage();
    let mut threads = 0_u32;
    let (mut ticks, mut pages) = (0_u64, 0_u64);
    for one in counted() {
        threads = threads.saturating_add(one.threads);
        ticks = ticks.saturating_add(one.ticks);
        pages = pages.saturating_add(one.resident_pages);
    }
    usage.cpu_time_ns = usage.cpu_time_ns.saturating_add(ticks.saturating_mul(tick_us() * 1000));
    usage.memory_bytes = pages.saturating_mul(rustix::param::page_size() as u64);
    usage.memory_peak_bytes = usage.memory_peak_bytes.max(usage.memory_bytes);
    for (read, written) in others().into_iter().filter_map(transferred) {
        usage.io_read_bytes = usage.io_read_bytes.saturating_add(read);
        usage.io_write_bytes = usage.io_write_bytes.saturating_add(written);
    }
    (threads, usage)
}

/// One process in `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    /// User and system time, and that of reaped children.
    ticks: u64,
    threads: u32,
    resident_pages: u64,
}

impl Counted {
    /// The name may contain anything.
    fn of(stat: &str) -> Option<Self> {
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // The state, third field of the line, is the first after the name.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let times = (14..=17).map(number).collect::<Option<Vec<_>>>()?;
        Some(Self {
            ticks: times.into_iter().sum(),
            threads: u32::try_from(number(20)?).ok()?,
            resident_pages: number(24)?,
        })
    }
}

fn counted() -> impl Iterator<Item = Counted> {
    let stat = |pid: i32| Counted::of(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?);
    others().into_iter().filter_map(stat)
}

/// Bytes that a process had read from and written to disks; what it cannot be asked for is left out.
fn transferred(pid: i32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let number = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Some((number("read_bytes:")?, number("write_bytes:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_counted_behind_any_name() {
        let stat = "7 (a) b) R 1 2 3 4 5 6 7 8 9 10 100 20 3 4 20 0 5 0 77 4096 88 99";
        assert_eq!(Counted::of(stat), Some(Counted { ticks: 127, threads: 5, resident_pages: 88 }));
        for broken in
            ["garbage", "7 (a) R 1 2 3", "7 (a) R 1 2 3 4 5 6 7 8 9 10 x 20 3 4 20 0 5 0 77 4096 88"]
        {
            assert_eq!(Counted::of(broken), None, "{broken}");
        }
    }

    #[test]
    fn another_file_at_the_path_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        fs::write(&path, "one").unwrap();
        let image: OwnedFd = fs::File::open(&path).unwrap().into();
        check_image(path.to_str().unwrap(), &image).unwrap();
        fs::rename(&path, folder.path().join("old")).unwrap();
        fs::write(&path, "one").unwrap();
        assert!(check_image(path.to_str().unwrap(), &image).is_err());
    }

    #[test]
    fn outside_of_a_namespace_of_its_own_nothing_is_signalled() {
        assert_eq!(others(), Vec::<i32>::new());
    }
}
