//! The kernel's keyrings, which no namespace divides by number.

use std::ffi::CString;
use std::fs;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use super::calls::{call, reached};
use super::{Attempt, Canaries, Failure, held, same};
use crate::guard::Guard::{Mountns, Seccomp};

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new("read_a_key", "reads a key of the user", &[Seccomp], read),
    Attempt::new("search_a_keyring", "finds a key in a keyring of the user", &[Seccomp], search),
    Attempt::new("change_a_key", "replaces what a key of the user holds", &[Seccomp], change),
    Attempt::new("leave_a_key", "leaves a key in a keyring of the user", &[Seccomp], leave),
    Attempt::new(
        "describe_a_key",
        "learns the name and the rights of a key of the user",
        &[Seccomp],
        describe,
    ),
    Attempt::new("set_the_rights_of_a_key", "changes who may use a key of the user", &[Seccomp], set_rights),
    Attempt::new(
        "set_the_life_of_a_key",
        "changes how long a key of the user lives",
        &[Seccomp],
        |canaries| control([libc::KEYCTL_SET_TIMEOUT.into(), key(canaries)?, 0, 0, 0], &[]),
    ),
    Attempt::new("keep_a_key", "links a key of the user into a keyring of its own", &[Seccomp], |canaries| {
        control([libc::KEYCTL_LINK.into(), key(canaries)?, PROCESS_KEYRING, 0, 0], &[])
    }),
    Attempt::new(
        "open_the_users_keyring",
        "finds the keyring that all of a user's processes share",
        &[Seccomp],
        |_| control([libc::KEYCTL_GET_KEYRING_ID.into(), USER_KEYRING, 1, 0, 0], &[]),
    ),
    Attempt::new("join_a_session", "takes another keyring for its session", &[Seccomp], |_| {
        control([libc::KEYCTL_JOIN_SESSION_KEYRING.into(), 0, 0, 0, 0], &[])
    }),
    Attempt::new(
        "ask_for_a_key",
        "makes the kernel look for a key, and start a program for it",
        &[Seccomp],
        ask,
    ),
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

/// As the kernel numbers them.
const PROCESS_KEYRING: u64 = -2i64 as u64;
const USER_KEYRING: u64 = -4i64 as u64;
/// All of a possessor and of the user, as the canary has it.
const KEY_RIGHTS: u64 = 0x3f3f_0000;

fn key(canaries: &Canaries) -> Result<u64, Failure> {
    Ok(canaries.number::<i64>("key")? as u64)
}

/// A call with numbers only.
fn control(arguments: [u64; 5], mistakes: &[i32]) -> Result<(), Failure> {
    // SAFETY: numbers only.
    reached(unsafe { call(libc::SYS_keyctl, arguments) }, mistakes)
}

fn describe(canaries: &Canaries) -> Result<(), Failure> {
    let mut found = [0u8; 256];
    let arguments =
        [u64::from(libc::KEYCTL_DESCRIBE), key(canaries)?, found.as_mut_ptr() as u64, found.len() as u64, 0];
    // SAFETY: the kernel writes at most the given length into a buffer that outlives the call.
    unsafe { call(libc::SYS_keyctl, arguments) }?;
    if found.starts_with(b"user;") { Ok(()) } else { Err(held("another key")) }
}

/// To what they are.
fn set_rights(canaries: &Canaries) -> Result<(), Failure> {
    control([libc::KEYCTL_SETPERM.into(), key(canaries)?, KEY_RIGHTS, 0, 0], &[])
}

/// There is none, which is said only to who may ask; without words for it no program is started.
fn ask(_: &Canaries) -> Result<(), Failure> {
    let arguments = [c"user".as_ptr() as u64, c"bailiwick-no-such-key".as_ptr() as u64, 0, 0, 0];
    // SAFETY: two C strings.
    reached(unsafe { call(libc::SYS_request_key, arguments) }, &[libc::ENOKEY])
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
