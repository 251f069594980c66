//! Names for a process's ids: without one, programs that ask who they are (`ssh`, `id -un`, `whoami`, Python's
//! `getpass`) refuse to go on. What the process sees as `/etc/passwd` and `/etc/group` gets a line more, in a copy in
//! memory over it; where there is a line for the id already, it stays what it is.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

use super::mounts::{NO_DEVICES, NO_EXEC, NO_SUID, READ_ONLY, attach, clone_tree, open_inside};
use crate::plan::{Plan, UserName};
use crate::sys;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// A longer file is that of a directory of users, not of a host; it stays as it is.
const BYTES_MAX: u64 = 1024 * 1024;
/// In the root, until it is where it belongs.
const COPY: &str = ".user-names";

/// The root is the new one, and can still be written to.
pub(super) fn put(plan: &Plan) -> io::Result<()> {
    let Some(UserName { name, home }) = &plan.user_name else { return Ok(()) };
    let (uid, gid) = (plan.identity.uid, plan.identity.gid);
    name_in(PASSWD, uid, name, |name| format!("{name}:x:{uid}:{gid}::{home}:/bin/sh\n"))?;
    name_in(GROUP, gid, name, |name| format!("{name}:x:{gid}:\n"))
}

fn name_in(path: &str, id: u32, name: &str, line: impl Fn(&str) -> String) -> io::Result<()> {
    let Some(text) = read(path)? else { return Ok(()) };
    match with_line(&text, id, name, line) {
        Some(text) => cover(path, &text),
        None => Ok(()),
    }
}

/// What is there; `None`: it is left alone.
fn read(path: &str) -> io::Result<Option<Vec<u8>>> {
    let opened = match open_inside(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
        Ok(opened) => opened,
        // Whoever shows an `/etc` without it, or one that the launcher may not read, wants it so.
        Err(_) => return Ok(None),
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let mut text = Vec::new();
    File::from(opened).take(BYTES_MAX + 1).read_to_end(&mut text)?;
    Ok((text.len() as u64 <= BYTES_MAX).then_some(text))
}

/// The text with a line more, unless one is about the id. A name that is somebody else's gets the id behind it.
fn with_line(text: &[u8], id: u32, name: &str, line: impl Fn(&str) -> String) -> Option<Vec<u8>> {
    let lines = || text.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b':'));
    let number = id.to_string();
    if lines().any(|mut fields| fields.nth(2) == Some(number.as_bytes())) {
        return None;
    }
    let is_taken = lines().any(|mut fields| fields.next() == Some(name.as_bytes()));
    let line = if is_taken { line(&format!("{name}-{id}")) } else { line(name) };
    let mut text = text.to_vec();
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text.extend(line.as_bytes());
    Some(text)
}

/// Puts a file of this content over a path, read-only.
fn cover(path: &str, text: &[u8]) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(CWD, COPY, flags, Mode::from_raw_mode(0o644))?;
    // The umask of the launcher has no say in it.
    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o644))?;
    File::from(made).write_all(text)?;
    let tree = clone_tree(CWD, COPY, false)?;
    sys::mount_setattr(tree.as_fd(), false, READ_ONLY | NO_SUID | NO_DEVICES | NO_EXEC, 0)?;
    attach(&tree, path)?;
    // It goes on to be where it was put.
    Ok(rustix::fs::unlinkat(CWD, COPY, AtFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_gets_a_line_unless_it_has_one() {
        let with = |text: &str, id| {
            let found = with_line(text.as_bytes(), id, "program", |name| format!("{name}:x:{id}:\n"));
            found.map(|text| String::from_utf8(text).unwrap())
        };
        let host = "root:x:0:0:root:/root:/bin/bash\nme:x:1000:1000::/home/me:/bin/sh\n";
        assert_eq!(with(host, 1000), None);
        assert_eq!(with(host, 0), None);
        // Not a number that begins so, and not another field.
        assert_eq!(with(host, 100).unwrap(), format!("{host}program:x:100:\n"));
        assert_eq!(with("a:x:5:7::/:/bin/sh", 7).unwrap(), "a:x:5:7::/:/bin/sh\nprogram:x:7:\n");
        assert_eq!(with("program:x:5:\n", 7).unwrap(), "program:x:5:\nprogram-7:x:7:\n");
        assert_eq!(with("", 7).unwrap(), "program:x:7:\n");
    }
}
