//! How each canary is made.

use std::ffi::CString;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Child;

use super::calls::call;
use super::canary::OTHER_UID;

/// POSSESSOR and USER, everything.
const KEY_RIGHTS: u64 = 0x3f3f_0000;
const PROCESS_KEYRING: u64 = -2i64 as u64;

pub(super) fn secret() -> io::Result<String> {
    let mut bytes = [0u8; 12];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold("canary-".to_owned(), |text, byte| format!("{text}{byte:02x}")))
}

pub(super) fn first_line(child: &mut Child) -> io::Result<String> {
    let mut line = String::new();
    let out = child.stdout.take().ok_or_else(|| io::Error::other("the target has no output"))?;
    BufReader::new(out).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// A pseudo-terminal of the maker: its master, and the path of what others would write to.
pub(super) fn terminal() -> io::Result<(OwnedFd, String)> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let path = ptsname(&master, Vec::new())?;
    Ok((master, path.to_string_lossy().into_owned()))
}

pub(super) fn shared_memory(secret: &str) -> io::Result<i32> {
    // SAFETY: plain numbers; the attached segment is as long as it was made, which is more than the secret, and is
    // detached before anything else sees it.
    unsafe {
        let id = libc::shmget(libc::IPC_PRIVATE, 4096, 0o600 | libc::IPC_CREAT);
        if id < 0 {
            return Err(io::Error::last_os_error());
        }
        let at = libc::shmat(id, std::ptr::null(), 0);
        if at as isize == -1 {
            return Err(io::Error::last_os_error());
        }
        std::ptr::copy_nonoverlapping(secret.as_ptr(), at.cast(), secret.len().min(4096));
        libc::shmdt(at);
        Ok(id)
    }
}

pub(super) fn queue() -> io::Result<i32> {
    // SAFETY: plain numbers.
    match unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600 | libc::IPC_CREAT) } {
        -1 => Err(io::Error::last_os_error()),
        id => Ok(id),
    }
}

/// A keyring and a key in it, of this process: they go when it goes.
pub(super) fn keys(secret: &str) -> io::Result<(i64, i64)> {
    let add = |kind: &std::ffi::CStr, name: &std::ffi::CStr, payload: &[u8], into: u64| {
        let arguments =
            [kind.as_ptr() as u64, name.as_ptr() as u64, payload.as_ptr() as u64, payload.len() as u64, into];
        // SAFETY: two C strings and a slice with its length.
        let key = unsafe { call(libc::SYS_add_key, arguments) }?;
        // SAFETY: plain numbers.
        unsafe {
            call(libc::SYS_keyctl, [u64::from(libc::KEYCTL_SETPERM), key as u64, KEY_RIGHTS, 0, 0])?;
        }
        Ok::<i64, io::Error>(key)
    };
    let keyring = add(c"keyring", c"bailiwick-canaries", &[], PROCESS_KEYRING)?;
    Ok((keyring, add(c"user", c"bailiwick-canary", secret.as_bytes(), keyring as u64)?))
}

/// A control group that this user may move processes to.
pub(super) fn group(own: &Path, mark: &str) -> Option<PathBuf> {
    let group = own.join(format!("bailiwick-canary-{mark}"));
    match fs::create_dir(&group) {
        Ok(()) => Some(group),
        // One hierarchy holds limits and is the unified one.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Some(group),
        Err(_) => None,
    }
}

/// A program of the user that says the secret.
pub(super) fn program(file: &Path, secret: &str) -> io::Result<()> {
    fs::write(file, format!("#!/bin/sh\necho {secret}\n"))?;
    fs::set_permissions(file, PermissionsExt::from_mode(0o700))
}

pub(super) fn semaphore() -> io::Result<i32> {
    // SAFETY: plain numbers.
    match unsafe { libc::semget(libc::IPC_PRIVATE, 1, 0o600 | libc::IPC_CREAT) } {
        -1 => Err(io::Error::last_os_error()),
        id => Ok(id),
    }
}

/// A POSIX queue with room for one small message.
pub(super) fn message_queue(mark: &str) -> io::Result<CString> {
    let name = CString::new(format!("/bailiwick-canary-{mark}"))?;
    // SAFETY: the structure is plain numbers and outlives the call, as the name does; the descriptor is closed at once.
    unsafe {
        let mut attributes: libc::mq_attr = std::mem::zeroed();
        (attributes.mq_maxmsg, attributes.mq_msgsize) = (1, 64);
        match libc::mq_open(
            name.as_ptr(),
            libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
            0o600,
            &raw mut attributes,
        ) {
            -1 => Err(io::Error::last_os_error()),
            queue => {
                libc::mq_close(queue);
                Ok(name)
            }
        }
    }
}

/// `struct file_handle`: length of what follows, kind, and at most 128 bytes.
const HANDLE_HEAD_BYTES: usize = 8;
const HANDLE_BYTES_MAX: usize = 128;

/// The kernel's handle of a file, as `open_by_handle_at` takes it.
pub(super) fn handle_of(file: &Path) -> io::Result<Vec<u8>> {
    let path = CString::new(file.as_os_str().as_bytes())?;
    let mut handle = vec![0u8; HANDLE_HEAD_BYTES + HANDLE_BYTES_MAX];
    if let Some(head) = handle.get_mut(..4) {
        head.copy_from_slice(&(HANDLE_BYTES_MAX as u32).to_ne_bytes());
    }
    let mut mount = 0i32;
    let arguments =
        [libc::AT_FDCWD as u64, path.as_ptr() as u64, handle.as_mut_ptr() as u64, &raw mut mount as u64, 0];
    // SAFETY: a C string, a handle with its length in its head, and a number; all outlive the call.
    unsafe { call(libc::SYS_name_to_handle_at, arguments) }?;
    let [a, b, c, d, ..] = *handle else { return Err(io::ErrorKind::InvalidData.into()) };
    handle.truncate(HANDLE_HEAD_BYTES + u32::from_ne_bytes([a, b, c, d]) as usize);
    Ok(handle)
}

/// A program that says who it is, set-uid to somebody else; only root can make one.
pub(super) fn set_uid_file(folder: &Path) -> Option<PathBuf> {
    let file = folder.join("id");
    fs::copy("/usr/bin/id", &file).ok()?;
    chown(&file, Some(OTHER_UID), None).ok()?;
    fs::set_permissions(&file, PermissionsExt::from_mode(0o4755)).ok()?;
    Some(file)
}
