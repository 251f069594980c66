//! New namespaces, and what the given ones hide: System V objects, the host's name and ids.

use std::io;

use super::calls::{call, in_child};
use super::{Attempt, Canaries, Failure, held, same};
use crate::guard::Guard::{Ipcns, Seccomp, Userns, Utsns};

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new(
        "unshare_a_user_namespace",
        "makes a user namespace, in which it has rights",
        &[Seccomp],
        unshare,
    ),
    Attempt::new(
        "clone_a_user_namespace",
        "starts a child in a user namespace of its own",
        &[Seccomp],
        clone,
    ),
    Attempt::new("attach_shared_memory", "reads a System V segment of the user", &[Ipcns], attach),
    Attempt::new("send_to_a_queue", "puts a message into a System V queue of the user", &[Ipcns], send),
    Attempt::new("learn_the_host_name", "learns the name of the host", &[Utsns], host_name),
    Attempt::new("learn_the_user", "learns the number of the user it runs as", &[Userns], user),
];

fn unshare(_: &Canaries) -> Result<(), Failure> {
    // SAFETY: a number; this process has one thread and shares nothing that this would take.
    unsafe { call(libc::SYS_unshare, [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0]) }?;
    Ok(())
}

fn clone(_: &Canaries) -> Result<(), Failure> {
    in_child(|| {
        let flags = (libc::CLONE_NEWUSER | libc::SIGCHLD) as u64;
        // SAFETY: without CLONE_VM and a stack this is a fork; the child ends at once.
        match unsafe { call(libc::SYS_clone, [flags, 0, 0, 0, 0]) }? {
            0 => crate::sys::exit_now(0),
            _ => Ok(()),
        }
    })
}

fn attach(canaries: &Canaries) -> Result<(), Failure> {
    let (id, secret) = (canaries.number("shared_memory")?, canaries.get("secret")?);
    let mut found = vec![0u8; secret.len()];
    // SAFETY: a segment that was attached is at least a page long, longer than any secret; it is read and detached.
    unsafe {
        let at = libc::shmat(id, std::ptr::null(), libc::SHM_RDONLY);
        if at as isize == -1 {
            return Err(io::Error::last_os_error().into());
        }
        std::ptr::copy_nonoverlapping(at.cast(), found.as_mut_ptr(), found.len());
        libc::shmdt(at);
    }
    same(&found, secret)
}

/// Any message's type and its one byte.
#[repr(C)]
struct Message {
    kind: libc::c_long,
    text: [u8; 8],
}

fn send(canaries: &Canaries) -> Result<(), Failure> {
    let message = Message { kind: 1, text: [0; 8] };
    // SAFETY: the kernel reads the type and eight bytes of a structure that outlives the call.
    match unsafe { libc::msgsnd(canaries.number("queue")?, (&raw const message).cast(), 8, libc::IPC_NOWAIT) }
    {
        // Full is reached.
        -1 if io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN) => Ok(()),
        -1 => Err(io::Error::last_os_error().into()),
        _ => Ok(()),
    }
}

fn host_name(canaries: &Canaries) -> Result<(), Failure> {
    same(rustix::system::uname().nodename().to_bytes(), canaries.get("host_name")?)
}

fn user(canaries: &Canaries) -> Result<(), Failure> {
    let found = rustix::process::getuid().as_raw();
    if found == canaries.number::<u32>("uid")? { Ok(()) } else { Err(held("a number of the sandbox")) }
}
