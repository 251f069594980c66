//! Whose process a `[program]` is: users and groups of the host by name.
//!
//! Read from `/etc/passwd` and `/etc/group` alone: this binary is static, so what other sources the C library would ask
//! is not asked. A number needs no entry.

use std::{fs::File, io::Read as _, path::Path};

use sandbox::Identity;
use thiserror::Error;

use super::{House, ownership::INSIDE_UID};
use crate::manifest::ProgramConfig;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// Bytes of either file that are read.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(in crate::shell) enum AccountFault {
    #[error("there is no {what} {name:?} in {file}; make it, or name another")]
    Unknown { what: &'static str, name: String, file: &'static str },
    #[error("cannot read {file}: {why}")]
    File { file: &'static str, why: String },
    #[error(
        "the program is to be user {wanted}, and this node does not run as root: it can start programs as its owner \
         ({own}) alone"
    )]
    NotPermitted { wanted: u32, own: u32 },
    #[error("program.privileges and program.groups need a node that runs as root")]
    NeedsRoot,
}

/// Who a program is on the host and inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) identity: Identity,
    pub(super) groups: Vec<u32>,
    /// Whose its files on the host are; none where nothing can be given away.
    pub(super) owner: Option<(u32, u32)>,
}

impl House {
    pub(super) fn account(&self, service: &str, program: &ProgramConfig) -> Result<Account, AccountFault> {
        let privileged = self.features.privileged;
        let asks_for_more = !program.privileges.is_empty() || !program.groups.is_empty();
        if asks_for_more && !privileged {
            return Err(AccountFault::NeedsRoot);
        }
        let Some(user) = &program.user else {
            let owner = self.uid_of(service);
            let identity = Identity { uid: INSIDE_UID, gid: INSIDE_UID, host_uid: owner, host_gid: owner };
            return Ok(Account { identity, groups: Vec::new(), owner: owner.map(|uid| (uid, uid)) });
        };
        let (uid, gid) = ids_of(user)?;
        if !privileged && uid != self.own_uid {
            return Err(AccountFault::NotPermitted { wanted: uid, own: self.own_uid });
        }
        let text = read(GROUP)?;
        let groups: Vec<u32> =
            program.groups.iter().map(|name| group_number(name, &text)).collect::<Result<_, _>>()?;
        // The same numbers inside, so that names mean what they mean on the host. Rootless, the one group that there
        // is shows as the user's.
        let host = |id| privileged.then_some(id);
        let identity = Identity { uid, gid, host_uid: host(uid), host_gid: host(gid) };
        Ok(Account { identity, groups, owner: privileged.then_some((uid, gid)) })
    }
}

/// User and group of `NAME`, `UID` or `NAME:GROUP` on this host.
pub(in crate::shell) fn ids_of(user: &str) -> Result<(u32, u32), AccountFault> {
    look_up(user, &read(PASSWD)?, &read(GROUP)?)
}

fn read(path: &'static str) -> Result<String, AccountFault> {
    let failed = |error: std::io::Error| AccountFault::File { file: path, why: error.to_string() };
    let mut bytes = Vec::new();
    File::open(Path::new(path))
        .map_err(failed)?
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `NAME`, `UID`, `NAME:GROUP`: numbers of user and group. A user without a group has the one of its entry, a number
/// without an entry the group of the same number.
fn look_up(user: &str, passwd: &str, group: &str) -> Result<(u32, u32), AccountFault> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let entries = || passwd.lines().filter_map(passwd_entry);
    let known = match name.parse::<u32>() {
        Ok(uid) => Some(entries().find(|entry| entry.1 == uid).map_or((uid, uid), |entry| (uid, entry.2))),
        Err(_) => entries().find(|entry| entry.0 == name).map(|entry| (entry.1, entry.2)),
    };
    let (uid, gid) =
        known.ok_or_else(|| AccountFault::Unknown { what: "user", name: name.to_owned(), file: PASSWD })?;
    Ok((uid, group_name.map_or(Ok(gid), |name| group_number(name, group))?))
}

/// Name, user, group.
fn passwd_entry(line: &str) -> Option<(&str, u32, u32)> {
    let mut fields = line.split(':');
    let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    Some((name, uid.parse().ok()?, gid.parse().ok()?))
}

fn group_number(name: &str, group: &str) -> Result<u32, AccountFault> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    let entry = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    let unknown = || AccountFault::Unknown { what: "group", name: name.to_owned(), file: GROUP };
    group.lines().find_map(entry).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD_TEXT: &str =
        "root:x:0:0:root:/root:/bin/bash\nbroken\nredis:x:107:114::/var/lib/redis:/usr/sbin/nologin\n";
    const GROUP_TEXT: &str = "root:x:0:\nadm:x:4:me\nredis:x:114:\n";

    #[test]
    fn users_are_found_by_name_and_number() {
        let found = |user| look_up(user, PASSWD_TEXT, GROUP_TEXT);
        assert_eq!(found("redis"), Ok((107, 114)));
        assert_eq!(found("107"), Ok((107, 114)));
        assert_eq!(found("4000"), Ok((4000, 4000)));
        assert_eq!(found("redis:adm"), Ok((107, 4)));
        assert_eq!(found("0:9"), Ok((0, 9)));
        for absent in ["nobody", "broken", "redis:wheel", ""] {
            assert!(matches!(found(absent), Err(AccountFault::Unknown { .. })), "{absent}");
        }
    }
}
