//! Runs child processes with a time limit, and adopts whatever they leave behind.
//!
//! This process is a subreaper: an orphan of any test, however often it forked, becomes our child instead of vanishing
//! under PID 1. So at the end, whatever descends from us is a leftover, no matter what it is called. A thread reaps
//! orphans that end, as PID 1 would have; a test that waits for a process to be gone would otherwise see a zombie.

use std::collections::HashMap;
use std::io::BufRead as _;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, pidfd_open, pidfd_send_signal,
    set_child_subreaper, wait, waitid,
};

/// Between the polite signal and the final one: nextest needs a moment to end its tests.
const TERM_GRACE: Duration = Duration::from_secs(10);
/// After the end of a command, between two lines of what it had still to say.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Of what is picked for an error.
const TOLD_LINES_MAX: usize = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Success,
    Code(i32),
    Signal(i32),
    TimedOut,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Success => write!(f, "ended well"),
            Self::Code(code) => write!(f, "ended with exit code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::TimedOut => write!(f, "did not end in time"),
        }
    }
}

/// Runs to the end, or to `limit`.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<End> {
    let name = command.get_program().to_string_lossy().into_owned();
    let reaper = Reaper::get()?;
    let pid = reaper.spawn(command).with_context(|| format!("starting {name}"))?;
    // A pidfd, so that a signal after the end hits nobody else.
    let pidfd = pidfd_open(pid, PidfdFlags::empty());
    if let Some(end) = reaper.wait_for(pid, limit) {
        return Ok(end);
    }
    for (signal, grace) in [(Signal::TERM, TERM_GRACE), (Signal::KILL, TERM_GRACE)] {
        if let Ok(pidfd) = &pidfd {
            // An error means that it ended meanwhile, which the next line sees.
            let _ = pidfd_send_signal(pidfd, signal);
        }
        if reaper.wait_for(pid, grace).is_some() {
            return Ok(End::TimedOut);
        }
    }
    bail!("{name} (pid {}) does not end, not even by SIGKILL", pid.as_raw_nonzero())
}

/// Runs and fails unless it ended well.
pub(crate) fn check(command: &mut Command, limit: Duration) -> Result<()> {
    let line = display(command);
    match run(command, limit)? {
        End::Success => Ok(()),
        end => bail!("`{line}` {end}"),
    }
}

/// The same, and an error names the lines of standard error that `tells` picks: of long output the end alone is looked at.
pub(crate) fn check_telling(command: &mut Command, limit: Duration, tells: fn(&str) -> bool) -> Result<()> {
    let (output, input) = std::io::pipe().context("making a pipe")?;
    command.stderr(input);
    let (send, picked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            eprintln!("{line}");
            if tells(&line) && send.send(line.into_owned()).is_err() {
                break;
            }
        }
    });
    let result = check(command, limit);
    // Ours is closed; what the command left behind may hold the pipe for as long as it lives.
    command.stderr(std::process::Stdio::inherit());
    let mut lines = Vec::new();
    while let Ok(line) = picked.recv_timeout(LAST_WORDS) {
        if lines.len() < TOLD_LINES_MAX {
            lines.push(line);
        }
    }
    result.map_err(|error| match lines.is_empty() {
        true => error,
        false => anyhow::anyhow!("{error:#}\n{}", lines.join("\n")),
    })
}

/// Runs with stdout kept in a file (a pipe would stay open in whatever a test leaves behind) and returns it.
pub(crate) fn stdout_of(command: &mut Command, limit: Duration) -> Result<String> {
    let dir = TempDir::new("out")?;
    let path = dir.path().join("stdout");
    command.stdout(std::fs::File::create(&path).with_context(|| format!("making {}", path.display()))?);
    check(command, limit)?;
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// Whether a program can be found in PATH.
pub(crate) fn installed(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}

fn display(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A folder that is gone when this value is.
pub(crate) struct TempDir(std::path::PathBuf);

impl TempDir {
    pub(crate) fn new(purpose: &str) -> Result<Self> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // Short, since sockets live below it and a socket's path has 107 bytes.
        let path = std::env::temp_dir().join(format!("bw-{purpose}-{}-{count}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // Nothing sensible can be done about a folder that does not go away; it is in the temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Pids that we started, each with its end once it is known.
type Table = HashMap<Pid, Option<End>>;

struct Reaper {
    table: Mutex<Table>,
    changed: Condvar,
}

impl Reaper {
    fn get() -> Result<Arc<Self>> {
        static REAPER: OnceLock<Arc<Reaper>> = OnceLock::new();
        if let Some(reaper) = REAPER.get() {
            return Ok(Arc::clone(reaper));
        }
        set_child_subreaper(Some(rustix::process::getpid())).context("becoming the parent of orphans")?;
        let mut first = false;
        let reaper = REAPER.get_or_init(|| {
            first = true;
            Arc::new(Self { table: Mutex::default(), changed: Condvar::new() })
        });
        if first {
            let for_thread = Arc::clone(reaper);
            std::thread::spawn(move || for_thread.reap_forever());
        }
        Ok(Arc::clone(reaper))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, command: &mut Command) -> Result<Pid> {
        // Held over the spawn: a child that cannot execute is reaped by the standard library itself.
        let mut table = self.lock();
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a pid that is none")?;
        table.insert(pid, None);
        self.changed.notify_all();
        Ok(pid)
    }

    fn wait_for(&self, pid: Pid, limit: Duration) -> Option<End> {
        let started = Instant::now();
        let mut table = self.lock();
        loop {
            if let Some(Some(end)) = table.get(&pid).copied() {
                table.remove(&pid);
                return Some(end);
            }
            let left = limit.checked_sub(started.elapsed()).filter(|left| !left.is_zero())?;
            table = self.changed.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn reap_forever(&self) {
        loop {
            // Looks without taking, so that nothing is taken while a spawn is under way.
            let seen = waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let mut table = self.lock();
            if seen.is_err() && table.values().all(Option::is_some) {
                // No child at all: sleep until one is started.
                drop(self.changed.wait(table).unwrap_or_else(PoisonError::into_inner));
                continue;
            }
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                if let Some(end) = table.get_mut(&pid) {
                    *end = Some(end_of(status));
                }
            }
            self.changed.notify_all();
        }
    }
}

fn end_of(status: WaitStatus) -> End {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => End::Success,
        (Some(code), _) => End::Code(code),
        (None, signal) => End::Signal(signal.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn ends_are_told_apart() {
        assert_eq!(run(&mut shell("exit 0"), LIMIT).unwrap(), End::Success);
        assert_eq!(run(&mut shell("exit 7"), LIMIT).unwrap(), End::Code(7));
        assert_eq!(run(&mut shell("kill -9 $$"), LIMIT).unwrap(), End::Signal(9));
        assert_eq!(run(&mut shell("exec sleep 60"), Duration::from_millis(50)).unwrap(), End::TimedOut);
        assert!(run(&mut Command::new("/nonexistent/program"), LIMIT).is_err());
    }

    #[test]
    fn stdout_is_returned_and_failure_is_an_error() {
        assert_eq!(stdout_of(&mut shell("echo hello"), LIMIT).unwrap(), "hello\n");
        assert!(stdout_of(&mut shell("echo hello; exit 1"), LIMIT).is_err());
    }

    #[test]
    fn a_failure_names_what_was_picked_of_standard_error() {
        let picked = |script: &str| check_telling(&mut shell(script), LIMIT, |line| line.contains("missed"));
        assert!(picked("echo 'missed nothing' >&2").is_ok());
        let error = format!("{:#}", picked("echo fine >&2; echo 'x: missed this' >&2; exit 1").unwrap_err());
        assert!(error.ends_with("ended with exit code 1\nx: missed this"), "{error}");
    }

    #[test]
    fn what_a_command_leaves_behind_holds_nobody_up() {
        let started = Instant::now();
        let script = "sleep 60 >/dev/null & echo $! >&2; exit 1";
        let error = check_telling(&mut shell(script), LIMIT, |_| true).unwrap_err().to_string();
        let pid: i32 = error.lines().last().unwrap().parse().unwrap();
        assert!(started.elapsed() < LIMIT, "it is waited for");
        let left = crate::leftovers::descendants().unwrap();
        let left: Vec<_> = left.into_iter().filter(|process| process.pid == pid).collect();
        assert_eq!(left.len(), 1, "it has ended, and held nothing open");
        crate::leftovers::end(&left);
    }

    #[test]
    fn an_orphan_that_ended_is_gone_and_one_that_lives_is_a_leftover() {
        let out = stdout_of(
            &mut shell("(sleep 0.05 >/dev/null & echo $!); (sleep 60 >/dev/null & echo $!)"),
            LIMIT,
        )
        .unwrap();
        let pids: Vec<i32> = out.lines().map(|l| l.parse().unwrap()).collect();
        let gone = |pid: i32| !std::path::Path::new(&format!("/proc/{pid}")).exists();
        let started = Instant::now();
        while !gone(pids[0]) && started.elapsed() < LIMIT {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(gone(pids[0]), "an ended orphan must be reaped");
        let left = crate::leftovers::descendants().unwrap();
        assert!(left.iter().any(|p| p.pid == pids[1]), "{left:?}");
        crate::leftovers::end(&left);
        assert!(crate::leftovers::descendants().unwrap().iter().all(|p| p.pid != pids[1]));
    }
}
