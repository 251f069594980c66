//! What `User` of an image means, by the image's own `/etc/passwd` and `/etc/group`.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
};

use rustix::{
    fs::{OFlags, ResolveFlags},
    io::Errno,
};

use super::refuse;

/// Of a list of users or groups.
const LIST_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: String,
}

pub(super) fn resolve(root: &OwnedFd, text: &str) -> io::Result<User> {
    find(text, &read(root, "etc/passwd")?, &read(root, "etc/group")?)
}

fn read(root: &OwnedFd, path: &str) -> io::Result<String> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match sandbox::open_within(root, path, flags, resolve) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(String::new()),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(LIST_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `user`, `uid`, or either with `:group` or `:gid`; empty is root.
fn find(text: &str, passwd: &str, group: &str) -> io::Result<User> {
    let (user, group_text) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let fields = |line: &'_ str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let entry = passwd.lines().map(fields).find(|entry| match number {
        Some(number) => at(entry, 2).parse() == Ok(number),
        None => at(entry, 0) == user,
    });
    let unknown = || refuse(format!("its user {user:?} is not in its /etc/passwd"));
    let uid = match number {
        Some(number) => number,
        None => entry.as_ref().and_then(|entry| at(entry, 2).parse().ok()).ok_or_else(unknown)?,
    };
    let gid = match group_text.filter(|text| !text.is_empty()) {
        Some(text) => match text.parse() {
            Ok(number) => number,
            Err(_) => group
                .lines()
                .map(fields)
                .find(|entry| at(entry, 0) == text)
                .and_then(|entry| at(&entry, 2).parse().ok())
                .ok_or_else(|| refuse(format!("its group {text:?} is not in its /etc/group")))?,
        },
        None => entry.as_ref().and_then(|entry| at(entry, 3).parse().ok()).unwrap_or(0),
    };
    // The kernel means "no id" by it.
    if uid == u32::MAX || gid == u32::MAX {
        return Err(refuse(format!("its user {text:?} has an id that nobody can have")));
    }
    let home = entry.map(|entry| at(&entry, 5).to_owned()).filter(|home| is_home(home));
    Ok(User { uid, gid, home: home.unwrap_or_else(|| "/".to_owned()) })
}

fn at(entry: &[String], number: usize) -> &str {
    entry.get(number).map_or("", String::as_str)
}

fn is_home(home: &str) -> bool {
    home.starts_with('/') && home.len() <= super::PATH_BYTES_MAX && !home.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/srv/web:/bin/false\nodd\n";
    const GROUP: &str = "root:x:0:\nwww:x:103:web\n";

    #[test]
    fn a_user_is_found_by_name_or_number() {
        let user = |text| find(text, PASSWD, GROUP).map(|it| (it.uid, it.gid, it.home)).ok();
        let is = |uid, gid, home: &str| Some((uid, gid, home.to_owned()));
        assert_eq!(user(""), is(0, 0, "/root"));
        assert_eq!(user("web"), is(101, 102, "/srv/web"));
        assert_eq!(user("101"), is(101, 102, "/srv/web"));
        assert_eq!(user("web:www"), is(101, 103, "/srv/web"));
        assert_eq!(user("7:8"), is(7, 8, "/"));
        assert_eq!(user("7"), is(7, 0, "/"));
        for wrong in ["nobody", "web:nobody", "4294967295", "0:4294967295"] {
            assert_eq!(user(wrong), None, "{wrong}");
        }
    }
}
