//! The listener of a filter: sees the calls that a plan named, tells what they are about, lets them go on.
//!
//! It never decides: between reading a path from the caller's memory and the kernel's own reading, the caller can
//! change it. The locks are the namespace, Landlock and the filter; this only names what was tried.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::plan::PATH_BYTES_MAX;
use crate::seccomp::NotifyCall;
use crate::sys;

/// `struct sockaddr_storage`.
const ADDRESS_BYTES_MAX: usize = 128;
const PAGE_BYTES: u64 = 4096;

/// One call that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Notification {
    pub id: u64,
    /// As the reader's pid namespace numbers it; 0 if it is not in it.
    pub pid: i32,
    pub number: i32,
    pub arguments: [u64; 6],
}

/// What a call is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Relative paths are relative to the caller's folder, or to the descriptor in its first argument.
    Path {
        call: NotifyCall,
        path: Vec<u8>,
        flags: u64,
    },
    Internet {
        call: NotifyCall,
        address: SocketAddr,
    },
    /// A path, or with a leading zero an abstract name.
    Unix {
        call: NotifyCall,
        name: Vec<u8>,
    },
    Other,
}

/// What becomes of a descriptor when its process executes another image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExec {
    Keep,
    Close,
}

/// An address as a call names it, read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// With scope and flow label.
    Internet(SocketAddr),
    /// `AF_UNSPEC`: takes an association back.
    Nobody,
    /// Of another family.
    Other,
}

impl Notification {
    /// The address of a `connect` or `bind`; an error is the number that the kernel would give.
    pub fn named(&self) -> Result<Named, i32> {
        let [_, at, length, ..] = self.arguments;
        // The kernel takes an `int`.
        let length = usize::try_from(length as i32).map_err(|_| libc::EINVAL)?;
        let mut raw = [0; ADDRESS_BYTES_MAX];
        let raw = raw.get_mut(..length).filter(|raw| raw.len() >= 2).ok_or(libc::EINVAL)?;
        match sys::read_memory(self.pid, at, raw) {
            Ok(read) if read == raw.len() => parse_named(raw),
            _ => Err(libc::EFAULT),
        }
    }
}

/// Lengths as the kernel asks for them: IPv6 was once without a scope.
fn parse_named(raw: &[u8]) -> Result<Named, i32> {
    const V4_BYTES: usize = 16;
    const V6_BYTES: usize = 24;
    let number = |at: usize| raw.get(at..)?.first_chunk::<4>().copied();
    let family = raw.first_chunk::<2>().map_or(0, |family| i32::from(u16::from_ne_bytes(*family)));
    let port =
        raw.get(2..).and_then(|rest| rest.first_chunk::<2>()).map_or(0, |port| u16::from_be_bytes(*port));
    match family {
        libc::AF_UNSPEC => Ok(Named::Nobody),
        libc::AF_INET if raw.len() >= V4_BYTES => {
            let ip = number(4).ok_or(libc::EINVAL)?;
            Ok(Named::Internet(SocketAddr::from((Ipv4Addr::from(ip), port))))
        }
        libc::AF_INET6 if raw.len() >= V6_BYTES => {
            let ip = raw.get(8..).and_then(|rest| rest.first_chunk::<16>()).ok_or(libc::EINVAL)?;
            let flow = u32::from_be_bytes(number(4).ok_or(libc::EINVAL)?);
            let scope = number(24).map_or(0, u32::from_ne_bytes);
            Ok(Named::Internet(SocketAddrV6::new(Ipv6Addr::from(*ip), port, flow, scope).into()))
        }
        libc::AF_INET | libc::AF_INET6 => Err(libc::EINVAL),
        _ => Ok(Named::Other),
    }
}

/// The listener of one filter. Closed, the calls that wait get `ENOSYS`.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Listener {
        Listener(fd)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener {
    /// Whoever calls waits for the reader, and the reader for the caller: the kernel may run one where the other stops
    /// (Linux 6.6). An error on an older one, where each is woken as any other.
    pub fn wake_on_same_processor(&self) -> io::Result<()> {
        /// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`
        const SYNC_WAKE_UP: u64 = 1;
        sys::notify_flags(self.as_fd(), SYNC_WAKE_UP)
    }

    /// The next call. Blocks unless the descriptor was polled readable; `None` when the caller went away meanwhile.
    pub fn receive(&self) -> io::Result<Option<Notification>> {
        // SAFETY: plain numbers; the kernel requires zeroes.
        let mut raw: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: this request reads and writes one seccomp_notif.
        match unsafe { sys::notify_ioctl(self.as_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &mut raw) } {
            Ok(()) => Ok(Some(Notification {
                id: raw.id,
                pid: raw.pid as i32,
                number: raw.data.nr,
                arguments: raw.data.args,
            })),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the call still waits. To be asked after anything was read by the caller's number.
    #[must_use]
    pub fn still_waits(&self, notification: &Notification) -> bool {
        let mut id = notification.id;
        // SAFETY: this request reads one u64.
        unsafe { sys::notify_ioctl(self.as_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &mut id) }.is_ok()
    }

    /// Reads what the call is about; `None` when the caller is gone or another process has its number.
    #[must_use]
    pub fn subject(&self, notification: &Notification) -> Option<Subject> {
        let subject = describe(notification).unwrap_or(Subject::Other);
        self.still_waits(notification).then_some(subject)
    }

    /// Lets the call go on to what the kernel says.
    pub fn go_on(&self, notification: &Notification) -> io::Result<()> {
        self.answer(notification, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32)
    }

    /// Ends the call with an error.
    pub fn refuse(&self, notification: &Notification, errno: i32) -> io::Result<()> {
        self.answer(notification, -errno, 0)
    }

    /// Ends the call with a value, after these bytes were laid down in the caller's memory.
    pub fn give(&self, notification: &Notification, given: &[(u64, Vec<u8>)], value: i64) -> io::Result<()> {
        for (address, bytes) in given {
            match sys::write_memory(notification.pid, *address, bytes) {
                Ok(written) if written == bytes.len() => {}
                _ => return self.refuse(notification, libc::EFAULT),
            }
        }
        self.send(libc::seccomp_notif_resp { id: notification.id, val: value, error: 0, flags: 0 })
    }

    /// Ends the call with a descriptor of the caller's that is this one, numbered by the kernel.
    pub fn hand(&self, notification: &Notification, fd: BorrowedFd<'_>, on_exec: OnExec) -> io::Result<()> {
        let flags = libc::SECCOMP_ADDFD_FLAG_SEND as u32;
        match self.add(notification, fd, flags, 0, on_exec) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            // Its table is full.
            Err(error) => self.refuse(notification, error.raw_os_error().unwrap_or(libc::EMFILE)),
            Ok(()) => Ok(()),
        }
    }

    /// Puts this one in the place of a descriptor of the caller's; the call still waits.
    pub fn replace(
        &self,
        notification: &Notification,
        fd: BorrowedFd<'_>,
        number: u32,
        on_exec: OnExec,
    ) -> io::Result<()> {
        self.add(notification, fd, libc::SECCOMP_ADDFD_FLAG_SETFD as u32, number, on_exec)
    }

    fn add(
        &self,
        notification: &Notification,
        fd: BorrowedFd<'_>,
        flags: u32,
        number: u32,
        on_exec: OnExec,
    ) -> io::Result<()> {
        let mut raw = libc::seccomp_notif_addfd {
            id: notification.id,
            flags,
            srcfd: fd.as_raw_fd() as u32,
            newfd: number,
            newfd_flags: if on_exec == OnExec::Close { libc::O_CLOEXEC as u32 } else { 0 },
        };
        // SAFETY: this request reads one seccomp_notif_addfd.
        unsafe { sys::notify_ioctl(self.as_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &mut raw) }
    }

    fn answer(&self, notification: &Notification, error: i32, flags: u32) -> io::Result<()> {
        self.send(libc::seccomp_notif_resp { id: notification.id, val: 0, error, flags })
    }

    fn send(&self, mut raw: libc::seccomp_notif_resp) -> io::Result<()> {
        // SAFETY: this request reads one seccomp_notif_resp.
        match unsafe { sys::notify_ioctl(self.as_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &mut raw) } {
            // The caller was killed: nobody waits for the answer.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }
}

fn describe(notification: &Notification) -> Option<Subject> {
    let Notification { pid, number, arguments, .. } = *notification;
    let [first, second, third, fourth, fifth, sixth] = arguments;
    let path = |call, address, flags| Some(Subject::Path { call, path: read_path(pid, address)?, flags });
    match i64::from(number) {
        libc::SYS_open => path(NotifyCall::Open, first, second),
        libc::SYS_creat => {
            path(NotifyCall::Open, first, (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u64)
        }
        libc::SYS_openat => path(NotifyCall::Open, second, third),
        libc::SYS_openat2 => {
            let mut flags = [0; 8];
            let read = sys::read_memory(pid, third, &mut flags).ok()?;
            path(NotifyCall::Open, second, if read == flags.len() { u64::from_ne_bytes(flags) } else { 0 })
        }
        libc::SYS_execve => path(NotifyCall::Exec, first, 0),
        libc::SYS_unlink | libc::SYS_rename | libc::SYS_mkdir | libc::SYS_rmdir | libc::SYS_link => {
            path(NotifyCall::ChangeName, first, 0)
        }
        libc::SYS_unlinkat
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_mkdirat
        | libc::SYS_linkat => path(NotifyCall::ChangeName, second, 0),
        // Of a link the new name is what counts.
        libc::SYS_symlink => path(NotifyCall::ChangeName, second, 0),
        libc::SYS_symlinkat => path(NotifyCall::ChangeName, third, 0),
        libc::SYS_connect => address(NotifyCall::Connect, pid, second, third),
        libc::SYS_bind => address(NotifyCall::Bind, pid, second, third),
        libc::SYS_sendto if fifth != 0 => address(NotifyCall::SendTo, pid, fifth, sixth),
        _ => {
            let _ = fourth;
            None
        }
    }
}

/// Reads a terminated path, page by page: what follows it may not be mapped.
fn read_path(pid: i32, address: u64) -> Option<Vec<u8>> {
    let mut path = vec![0; PATH_BYTES_MAX + 1];
    let mut length = 0usize;
    while length < path.len() {
        let at = address.checked_add(length as u64)?;
        let to_page_end = (PAGE_BYTES - at % PAGE_BYTES) as usize;
        let end = path.len().min(length + to_page_end);
        let read = sys::read_memory(pid, at, path.get_mut(length..end)?).ok().filter(|read| *read > 0)?;
        let part = path.get(length..length + read)?;
        if let Some(zero) = part.iter().position(|byte| *byte == 0) {
            path.truncate(length + zero);
            return Some(path);
        }
        length += read;
    }
    None
}

fn address(call: NotifyCall, pid: i32, at: u64, length: u64) -> Option<Subject> {
    let length = usize::try_from(length).ok().filter(|length| (2..=ADDRESS_BYTES_MAX).contains(length))?;
    let mut raw = [0; ADDRESS_BYTES_MAX];
    let raw = raw.get_mut(..length)?;
    if sys::read_memory(pid, at, raw).ok()? != length {
        return None;
    }
    parse_address(call, raw)
}

fn parse_address(call: NotifyCall, raw: &[u8]) -> Option<Subject> {
    let (family, rest) = raw.split_first_chunk::<2>()?;
    match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_UNIX => {
            // A path ends at its zero, an abstract name at the length.
            let name = match rest.split_first() {
                Some((0, _)) | None => rest,
                Some(_) => rest.split(|byte| *byte == 0).next().unwrap_or(rest),
            };
            Some(Subject::Unix { call, name: name.to_vec() })
        }
        libc::AF_INET => {
            let (port, rest) = rest.split_first_chunk::<2>()?;
            let (ip, _) = rest.split_first_chunk::<4>()?;
            let address = SocketAddr::from((Ipv4Addr::from(*ip), u16::from_be_bytes(*port)));
            Some(Subject::Internet { call, address })
        }
        libc::AF_INET6 => {
            let (port, rest) = rest.split_first_chunk::<2>()?;
            let (_flow, rest) = rest.split_first_chunk::<4>()?;
            let (ip, _) = rest.split_first_chunk::<16>()?;
            let address = SocketAddr::from((Ipv6Addr::from(*ip), u16::from_be_bytes(*port)));
            Some(Subject::Internet { call, address })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_and_cut_ones_are_not() {
        let v4 = [2, 0, 0x01, 0xbb, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0];
        let expected =
            Subject::Internet { call: NotifyCall::Connect, address: "192.0.2.7:443".parse().unwrap() };
        assert_eq!(parse_address(NotifyCall::Connect, &v4), Some(expected));
        assert_eq!(parse_address(NotifyCall::Connect, &v4[..7]), None);
        let unix = [&[1, 0][..], b"/run/x.sock\0rest"].concat();
        let expected = Subject::Unix { call: NotifyCall::Bind, name: b"/run/x.sock".to_vec() };
        assert_eq!(parse_address(NotifyCall::Bind, &unix), Some(expected));
        let hidden = [&[1, 0, 0][..], b"name"].concat();
        let expected = Subject::Unix { call: NotifyCall::Bind, name: b"\0name".to_vec() };
        assert_eq!(parse_address(NotifyCall::Bind, &hidden), Some(expected));
    }

    #[test]
    fn an_address_is_read_as_the_kernel_reads_it() {
        let v4 = [2, 0, 0x01, 0xbb, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(parse_named(&v4), Ok(Named::Internet("192.0.2.7:443".parse().unwrap())));
        assert_eq!(parse_named(&v4[..15]), Err(libc::EINVAL));
        let mut v6 = [0; 28];
        (v6[0], v6[3], v6[23], v6[24]) = (10, 80, 1, 7);
        let with = |scope| Ok(Named::Internet(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 80, 0, scope).into()));
        assert_eq!((parse_named(&v6), parse_named(&v6[..24])), (with(7), with(0)));
        assert_eq!(parse_named(&v6[..23]), Err(libc::EINVAL));
        assert_eq!((parse_named(&[0, 0]), parse_named(&[1, 0, b'/'])), (Ok(Named::Nobody), Ok(Named::Other)));
        let own = std::process::id() as i32;
        let call = |at: u64, length: u64| {
            let arguments = [3, at, length, 0, 0, 0];
            Notification { id: 0, pid: own, number: 42, arguments }.named()
        };
        let at = v4.as_ptr() as u64;
        assert!(call(at, 16).is_ok());
        for length in [0, 1, ADDRESS_BYTES_MAX as u64 + 1, u64::MAX, i32::MAX as u64] {
            assert_eq!(call(at, length), Err(libc::EINVAL), "{length}");
        }
        assert_eq!(call(16, 16), Err(libc::EFAULT));
    }

    #[test]
    fn a_path_is_read_up_to_its_zero() {
        let text = b"/a/path\0more".to_vec();
        let own = std::process::id() as i32;
        assert_eq!(read_path(own, text.as_ptr() as u64), Some(b"/a/path".to_vec()));
        assert_eq!(read_path(own, 16), None);
    }
}
