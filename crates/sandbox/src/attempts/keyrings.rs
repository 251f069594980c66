//! The kernel's keyrings, which no namespace divides by number.

use std::ffi::CString;
use std::fs;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use super::calls::call;
use super::{Attempt, Canaries, Failure, held, same};
use crate::guard::Guard::{Mountns, Seccomp};

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new("read_a_key", "reads a key of the user", &[Seccomp], read),
    Attempt::new("search_a_keyring", "finds a key in a keyring of the user", &[Seccomp], search),
    Attempt::new("change_a_key", "replaces what a key of the user holds", &[Seccomp], change),
    Attempt::new("leave_a_key", "leaves a key in a keyring of the user", &[Seccomp], leave),
    Attempt::new("list_keys", "finds a key of the user in /proc/keys", &[Mountns], list),
];

fn read(canaries: &Canaries) -> Result<(), Failure> {
    let secret = canaries.get("secret")?;
    let mut found = [0u8; 64];
    let arguments = [
        u64::from(libc::KEYCTL_READ),
        canaries.number::<i64>("key")? as u64,
        found.as_mut_ptr() as u64,
        found.len() as u64,
        0,
    ];
    // SAFETY: the kernel writes at most the given length into a buffer that outlives the call.
    let length = unsafe { call(libc::SYS_keyctl, arguments) }?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    // A key that was changed by the attempt that changes it was read all the same.
    let found = found.get(..length).ok_or_else(|| held("a longer key"))?;
    if found == CHANGED { Ok(()) } else { same(found, secret) }
}

const CHANGED: &[u8] = b"changed";

fn search(canaries: &Canaries) -> Result<(), Failure> {
    let arguments = [
        u64::from(libc::KEYCTL_SEARCH),
        canaries.number::<i64>("keyring")? as u64,
        c"user".as_ptr() as u64,
        c"bailiwick-canary".as_ptr() as u64,
        0,
    ];
    // SAFETY: two C strings.
    let found = unsafe { call(libc::SYS_keyctl, arguments) }?;
    if found == canaries.number::<i64>("key")? { Ok(()) } else { Err(held("another key")) }
}

fn change(canaries: &Canaries) -> Result<(), Failure> {
    let arguments = [
        u64::from(libc::KEYCTL_UPDATE),
        canaries.number::<i64>("key")? as u64,
        CHANGED.as_ptr() as u64,
        CHANGED.len() as u64,
        0,
    ];
    // SAFETY: a slice with its length.
    unsafe { call(libc::SYS_keyctl, arguments) }?;
    Ok(())
}

fn leave(canaries: &Canaries) -> Result<(), Failure> {
    let keyring = canaries.number::<i64>("keyring")? as u64;
    // A name of its own: a key of that name would be changed instead, for which other rights count.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let name = CString::new(format!("left-{now}")).map_err(io::Error::other)?;
    let arguments = [c"user".as_ptr() as u64, name.as_ptr() as u64, c"x".as_ptr() as u64, 1, keyring];
    // SAFETY: three C strings, of the last one byte.
    unsafe { call(libc::SYS_add_key, arguments) }?;
    Ok(())
}

fn list(canaries: &Canaries) -> Result<(), Failure> {
    let serial = format!("{:08x}", canaries.number::<i64>("key")?);
    let text = fs::read_to_string("/proc/keys")?;
    let found = text.lines().any(|line| line.starts_with(&serial));
    if found { Ok(()) } else { Err(io::Error::from(io::ErrorKind::NotFound).into()) }
}
