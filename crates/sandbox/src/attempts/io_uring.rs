//! Calls on a ring, which a system call filter does not see.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::net::{AddressFamily, SocketType};

use super::calls::{c_path, call, reached};
use super::ring::{
    CONNECT, MAKE_FOLDER, OPEN, POLLED_BY_THE_KERNEL, RENAME, Request, Ring, SOCKET, STATX, SYMLINK, UNLINK,
};
use super::servers::hear;
use super::{Attempt, Canaries, Failure, held, same};
use crate::guard::Guard::{self, Landlock, Mountns, Netns, Seccomp};

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new("make_a_ring", "makes a ring, on which calls pass by the filter", &[Seccomp], make),
    Attempt::new("open_by_a_ring", "reads a file of the user", &[Seccomp, Mountns, Landlock], open),
    Attempt::new(
        "connect_by_a_ring",
        "talks with a TCP server on the host's loopback",
        &[Seccomp, Netns],
        connect,
    ),
    Attempt::new("socket_by_a_ring", "makes a socket of a family that is refused", &[Seccomp], socket),
    Attempt::new("delete_by_a_ring", "deletes a file of the user", ALL_THREE, |canaries| {
        by_path(canaries.file("victim")?, UNLINK, None).map(drop)
    }),
    Attempt::new("rename_by_a_ring", "gives a file of the user another name", ALL_THREE, rename),
    Attempt::new("link_by_a_ring", "makes a link in a folder of the user", ALL_THREE, link),
    Attempt::new("make_a_folder_by_a_ring", "makes a folder among those of the user", ALL_THREE, folder),
    Attempt::new("look_by_a_ring", "learns that a file of the user exists", &[Seccomp, Mountns], look),
    Attempt::new("poll_by_the_kernel", "gets a thread of the kernel that does its calls", &[Seccomp], poll),
    Attempt::new(
        "register_with_a_ring",
        "reaches the call that gives a ring memory and files",
        &[Seccomp],
        |_| {
            // SAFETY: numbers; there is no such ring, which is only said to who may ask.
            reached(
                unsafe { call(libc::SYS_io_uring_register, [u64::MAX, 0, 0, 0, 0]) },
                &[libc::EBADF, libc::EINVAL],
            )
        },
    ),
    Attempt::new("enter_a_ring", "reaches the call that a ring that was passed on needs", &[Seccomp], |_| {
        // SAFETY: numbers; there is no such ring, which is only said to who may ask.
        reached(
            unsafe { call(libc::SYS_io_uring_enter, [u64::MAX, 0, 0, 0, 0]) },
            &[libc::EBADF, libc::EINVAL],
        )
    }),
];

const ALL_THREE: &[Guard] = &[Seccomp, Mountns, Landlock];

/// One request about a path, or about two.
fn by_path(path: PathBuf, operation: u8, second: Option<PathBuf>) -> Result<i32, Failure> {
    let path = c_path(&path)?;
    let second = second.as_deref().map(c_path).transpose()?;
    let (offset, length) = match (&second, operation) {
        (Some(second), _) => (second.as_ptr() as u64, libc::AT_FDCWD as u32),
        (None, MAKE_FOLDER) => (0, 0o700),
        (None, _) => (0, 0),
    };
    let request = Request {
        operation,
        fd: libc::AT_FDCWD,
        address: path.as_ptr() as u64,
        offset,
        length,
        ..Request::default()
    };
    Ok(Ring::new()?.carry_out(request)?)
}

fn rename(canaries: &Canaries) -> Result<(), Failure> {
    let (old, new) = (canaries.file("victim")?, canaries.file("renamed")?);
    by_path(old.clone(), RENAME, Some(new.clone()))?;
    Ok(std::fs::rename(new, old)?)
}

fn link(canaries: &Canaries) -> Result<(), Failure> {
    let (secret, link) = (canaries.file("secret")?, canaries.file("link")?);
    let [points_to, at] = [c_path(&secret)?, c_path(&link)?];
    let request = Request {
        operation: SYMLINK,
        fd: libc::AT_FDCWD,
        address: points_to.as_ptr() as u64,
        offset: at.as_ptr() as u64,
        ..Request::default()
    };
    Ring::new()?.carry_out(request)?;
    Ok(std::fs::remove_file(link)?)
}

fn folder(canaries: &Canaries) -> Result<(), Failure> {
    let folder = canaries.file("folder")?;
    by_path(folder.clone(), MAKE_FOLDER, None)?;
    Ok(std::fs::remove_dir(folder)?)
}

fn look(canaries: &Canaries) -> Result<(), Failure> {
    let path = c_path(&canaries.file("secret")?)?;
    let mut found = [0u64; 32];
    let request = Request {
        operation: STATX,
        fd: libc::AT_FDCWD,
        address: path.as_ptr() as u64,
        offset: found.as_mut_ptr() as u64,
        length: libc::STATX_SIZE,
        ..Request::default()
    };
    Ring::new()?.carry_out(request)?;
    // `struct statx`: the size stands at byte 40.
    if found.get(5).copied() == Some(canaries.get("secret")?.len() as u64) {
        Ok(())
    } else {
        Err(held("another file"))
    }
}

fn poll(_: &Canaries) -> Result<(), Failure> {
    Ring::with_flags(POLLED_BY_THE_KERNEL)?;
    Ok(())
}

fn make(_: &Canaries) -> Result<(), Failure> {
    Ring::new()?;
    Ok(())
}

/// The descriptor that a request resulted in.
fn descriptor(raw: i32) -> OwnedFd {
    // SAFETY: the kernel made it for this request; nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

fn open(canaries: &Canaries) -> Result<(), Failure> {
    let path = CString::new(canaries.file("secret")?.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let request = Request {
        operation: OPEN,
        fd: libc::AT_FDCWD,
        address: path.as_ptr() as u64,
        operation_flags: libc::O_RDONLY as u32,
        ..Request::default()
    };
    let mut found = Vec::new();
    File::from(descriptor(Ring::new()?.carry_out(request)?)).read_to_end(&mut found)?;
    same(&found, canaries.get("secret")?)
}

fn connect(canaries: &Canaries) -> Result<(), Failure> {
    let ring = Ring::new()?;
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    let port: u16 = canaries.number("tcp_port")?;
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    };
    let request = Request {
        operation: CONNECT,
        fd: socket.as_raw_fd(),
        offset: std::mem::size_of::<libc::sockaddr_in>() as u64,
        address: &raw const address as u64,
        ..Request::default()
    };
    ring.carry_out(request)?;
    same(&hear(TcpStream::from(socket))?, canaries.get("secret")?)
}

/// Kernel events: a family of which the filter lets only route lookups pass.
fn socket(_: &Canaries) -> Result<(), Failure> {
    let request = Request {
        operation: SOCKET,
        fd: libc::AF_NETLINK,
        offset: libc::SOCK_DGRAM as u64,
        length: libc::NETLINK_KOBJECT_UEVENT as u32,
        ..Request::default()
    };
    drop(descriptor(Ring::new()?.carry_out(request)?));
    Ok(())
}
