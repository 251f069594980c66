//! Looks at the calls that the filter shows: names what was refused, and lets the kernel decide.
//!
//! Only what cannot go otherwise is answered here: in a network of nothing but a loopback, an address outside has no
//! route; a covered secret is not there. All else goes on, and whether it was refused is found by the same look-up in the
//! same namespace. What is about TCP is `egress.rs`'s.

use std::{cell::RefCell, fs, net::SocketAddr, os::fd::OwnedFd, rc::Rc};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Access, AtFlags, CWD},
    io::Errno,
};
use sandbox::{
    notify::{Listener, Notification, Subject},
    seccomp::NotifyCall,
};

use super::{egress::WayOut, refused::RefusedCalls};
use crate::core::{Finding, Learned, Uses, Watch, normalize};

/// Calls answered in a row before the loop looks at everything else again.
const CALLS_PER_TURN_MAX: usize = 64;

/// A call that the monitor answers itself.
type Verdict = Option<Errno>;

#[derive(Debug)]
pub(crate) struct Notices {
    listener: Rc<Listener>,
    watch: Watch,
    own_network: bool,
    learned: Option<Rc<RefCell<Learned>>>,
}

impl Notices {
    pub(crate) fn new(listener: OwnedFd, watch: Watch, own_network: bool) -> Self {
        let listener = Listener::from(listener);
        // Faster where the kernel has it, and nothing else.
        let _ = listener.wake_on_same_processor();
        Self { listener: Rc::new(listener), watch, own_network, learned: None }
    }

    /// What is used is taken down there.
    pub(crate) fn learning(self, learned: Option<Rc<RefCell<Learned>>>) -> Self {
        Self { learned, ..self }
    }

    /// Under the name that it was called by, and under the one that it really has: either may be behind a link.
    fn learn(&self, path: &str, uses: Uses) {
        let Some(learned) = &self.learned else { return };
        let mut learned = learned.borrow_mut();
        learned.add(path, uses);
        if let Ok(real) = fs::canonicalize(path)
            && let Some(real) = real.to_str().filter(|real| *real != path)
        {
            learned.add(real, uses);
        }
    }

    /// An opening or executing call, before the kernel decides it: taken down if it can succeed.
    fn learn_call(&self, kind: NotifyCall, path: &str, writes: bool, creates: bool) {
        if self.learned.is_none() {
            return;
        }
        let folder =
            path.rsplit_once('/').map_or("/", |(folder, _)| if folder.is_empty() { "/" } else { folder });
        let can = |path: &str, wanted| access(path, wanted).is_ok();
        let is_there = can(path, Access::EXISTS);
        match kind {
            NotifyCall::Exec if can(path, Access::EXEC_OK) => self.learn(path, Uses::EXECUTE),
            NotifyCall::ChangeName if can(folder, Access::WRITE_OK) => self.learn(folder, Uses::WRITE),
            NotifyCall::Open if creates && !is_there && can(folder, Access::WRITE_OK) => {
                self.learn(folder, Uses::WRITE);
            }
            NotifyCall::Open if writes && can(path, Access::WRITE_OK) => self.learn(path, Uses::WRITE),
            NotifyCall::Open if !writes && can(path, Access::READ_OK) => self.learn(path, Uses::READ),
            _ => {}
        }
    }

    pub(crate) fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Nobody is left who shows calls here.
    pub(crate) fn is_over(&self) -> bool {
        let mut polled = [PollFd::new(&*self.listener, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let _ = poll(&mut polled, Some(&at_once));
        polled.iter().any(|one| one.revents().contains(PollFlags::HUP))
    }

    /// Answers what waits.
    pub(crate) fn serve(
        &self,
        refused: &mut RefusedCalls,
        mut way_out: Option<&mut WayOut>,
    ) -> std::io::Result<()> {
        for _ in 0..CALLS_PER_TURN_MAX {
            if let Some(call) = self.listener.receive()? {
                let taken = match &mut way_out {
                    Some(way_out) => way_out.take(&self.listener, &call, refused)?,
                    None => false,
                };
                if taken {
                    if !super::is_readable(&*self.listener) {
                        return Ok(());
                    }
                    continue;
                }
                let leads_out = way_out.as_ref().is_some_and(|way_out| way_out.leads_out);
                let has_datagrams = way_out.as_ref().is_some_and(|way_out| way_out.has_datagrams());
                let subject = self.listener.subject(&call);
                let verdict = subject
                    .filter(|subject| !(has_datagrams && matches!(subject, Subject::Internet { .. })))
                    .and_then(|subject| self.judge(&call, &subject, refused, leads_out));
                match verdict {
                    Some(errno) => self.listener.refuse(&call, errno.raw_os_error())?,
                    None => self.listener.go_on(&call)?,
                }
            }
            if !super::is_readable(&*self.listener) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn judge(
        &self,
        call: &Notification,
        subject: &Subject,
        refused: &mut RefusedCalls,
        leads_out: bool,
    ) -> Verdict {
        match subject {
            Subject::Path { call: kind, path, flags } => {
                let path = absolute(call, *kind, path)?;
                self.judge_path(call.number, *kind, &path, *flags, refused)
            }
            Subject::Internet { call: NotifyCall::Connect, address } if self.own_network => {
                let errno = refusal(address)?;
                // Of TCP the way out answers. Who sorts the addresses of a name tries each by UDP and sends nothing: one line for
                // all.
                let target = if leads_out { UDP.to_owned() } else { address.to_string() };
                refused.add("connect", &target, errno.raw_os_error());
                Some(errno)
            }
            Subject::Unix { call: NotifyCall::Connect, name } if !name.starts_with(b"\0") => {
                let path = absolute_from(&format!("/proc/{}/cwd", call.pid), name)?;
                if access(&path, Access::WRITE_OK).is_ok() {
                    self.learn(&path, Uses::CONNECT);
                }
                if self.watch.judge_socket(&path) != Finding::Ordinary
                    && let Err(errno) = access(&path, Access::WRITE_OK)
                {
                    refused.add("connect", &path, errno.raw_os_error());
                }
                None
            }
            _ => None,
        }
    }

    fn judge_path(
        &self,
        number: i32,
        kind: NotifyCall,
        path: &str,
        flags: u64,
        refused: &mut RefusedCalls,
    ) -> Verdict {
        let has = |bits: i32| flags & bits as u64 != 0;
        let changes = kind == NotifyCall::ChangeName;
        let creates = changes || has(O_CREAT);
        let writes = creates || has(O_WRONLY | O_RDWR | O_TRUNC);
        let name = call_name(number);
        self.learn_call(kind, path, writes, creates);
        match self.watch.judge(path, writes, creates) {
            Finding::Ordinary => None,
            Finding::Masked => {
                refused.add(name, path, Errno::ACCESS.raw_os_error());
                Some(Errno::ACCESS)
            }
            Finding::IfAbsent => {
                let wanted = if writes { Access::WRITE_OK } else { Access::READ_OK };
                if let Err(errno) = access(path, wanted) {
                    refused.add(name, path, errno.raw_os_error());
                }
                None
            }
            Finding::IfReadOnly => {
                if let Err(errno) = writable(path) {
                    refused.add(name, path, errno.raw_os_error());
                }
                None
            }
        }
    }
}

const O_WRONLY: i32 = rustix::fs::OFlags::WRONLY.bits() as i32;
const O_RDWR: i32 = rustix::fs::OFlags::RDWR.bits() as i32;
const O_CREAT: i32 = rustix::fs::OFlags::CREATE.bits() as i32;
const O_TRUNC: i32 = rustix::fs::OFlags::TRUNC.bits() as i32;

/// Names of the shown calls on x86-64, the only architecture that the filter lets in.
fn call_name(number: i32) -> &'static str {
    match number {
        2 => "open",
        85 => "creat",
        257 => "openat",
        437 => "openat2",
        59 => "execve",
        82 | 264 | 316 => "rename",
        83 | 258 => "mkdir",
        84 => "rmdir",
        86 | 265 => "link",
        87 | 263 => "unlink",
        88 | 266 => "symlink",
        _ => "call",
    }
}

fn access(path: &str, wanted: Access) -> Result<(), Errno> {
    rustix::fs::accessat(CWD, path, wanted, AtFlags::empty())
}

/// Whether a file can be written, or made where it is not.
fn writable(path: &str) -> Result<(), Errno> {
    match access(path, Access::WRITE_OK) {
        Err(Errno::NOENT) => {
            let folder =
                path.rsplit_once('/').map_or("/", |(folder, _)| if folder.is_empty() { "/" } else { folder });
            access(folder, Access::WRITE_OK)
        }
        result => result,
    }
}

/// The path of a call as the program's root shows it.
fn absolute(call: &Notification, kind: NotifyCall, path: &[u8]) -> Option<String> {
    const AT_FDCWD: i32 = -100;
    let [first, second, ..] = call.arguments;
    let folder = match call.number {
        // Calls without a folder descriptor.
        2 | 85 | 59 | 82 | 83 | 84 | 86 | 87 | 88 => AT_FDCWD,
        // symlinkat names its folder second.
        266 => second as i32,
        _ => first as i32,
    };
    if path.is_empty() && kind != NotifyCall::Exec {
        return None;
    }
    let base = match folder {
        AT_FDCWD => format!("/proc/{}/cwd", call.pid),
        descriptor => format!("/proc/{}/fd/{descriptor}", call.pid),
    };
    absolute_from(&base, path)
}

fn absolute_from(base: &str, path: &[u8]) -> Option<String> {
    let path = String::from_utf8_lossy(path);
    if path.starts_with('/') {
        return Some(normalize(&path));
    }
    let folder = fs::read_link(base).ok()?;
    Some(normalize(&format!("{}/{path}", folder.to_str()?)))
}

/// As what all datagrams of a program with a way out are written down.
const UDP: &str = "udp";

/// What the kernel says to this connection in a network of a loopback alone; none if it may succeed. Of TCP the monitor
/// carries out what is meant for the loopback, and knows then.
fn refusal(address: &SocketAddr) -> Verdict {
    let ip = address.ip().to_canonical();
    // The unspecified address means the machine itself.
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(Errno::NETUNREACH)
}
