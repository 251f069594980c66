//! Getting rights back: by securebits, ambient sets, groups, owners and attributes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use rustix::fs::XattrFlags;
use rustix::thread::Gid;

use super::calls::call;
use super::canary::OTHER_UID;
use super::{Attempt, Failure, NEEDS_THE_HOSTS_RIGHT, Way};
use crate::guard::Guard::{Caps, Seccomp, Userns};

const NET_RAW: u64 = 13;

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new("keep_a_capability_over_exec", "raises a capability that programs inherit", &[Caps], |_| {
        control([libc::PR_CAP_AMBIENT as u64, libc::PR_CAP_AMBIENT_RAISE as u64, NET_RAW, 0, 0])
    })
    .inside_only(),
    Attempt::new("change_the_secure_bits", "unlocks that root has rights", &[Caps], |_| {
        control([libc::PR_SET_SECUREBITS as u64, 0, 0, 0, 0])
    })
    .inside_only(),
    Attempt::new("keep_rights_over_ids", "keeps its rights when it changes its user", &[Caps], |_| {
        control([libc::PR_SET_KEEPCAPS as u64, 1, 0, 0, 0])
    })
    .root(KEEPS_NOTHING)
    .rootless(KEEPS_NOTHING),
    Attempt::new("drop_a_bound", "changes the bound of its capabilities", &[Caps], |_| {
        control([libc::PR_CAPBSET_DROP as u64, NET_RAW, 0, 0, 0])
    })
    .inside_only(),
    Attempt::new("take_the_promise_back", "may gain rights by exec again", &[Caps], |_| {
        control([libc::PR_SET_NO_NEW_PRIVS as u64, 0, 0, 0, 0])
    })
    .root(NEVER_BACK)
    .rootless(NEVER_BACK),
    Attempt::new("take_the_filter_off", "leaves its system call filter", &[Seccomp], |_| {
        // SAFETY: numbers only: mode 0 is none.
        unsafe { call(libc::SYS_prctl, [libc::PR_SET_SECCOMP as u64, 0, 0, 0, 0]) }?;
        Ok(())
    })
    .root(NEVER_BACK)
    .rootless(NEVER_BACK),
    Attempt::new("drop_its_groups", "drops groups, by which files can deny", &[Caps], |_| {
        Ok(rustix::thread::set_thread_groups(&[])?)
    })
    .rootless(Way::Never("a rootless user namespace denies setgroups, or denials by group would be lost")),
    Attempt::new("become_another_group", "changes its group id", &[Caps, Userns], |_| {
        let gid = Gid::from_raw(OTHER_UID);
        Ok(rustix::thread::set_thread_res_gid(gid, gid, gid)?)
    })
    .rootless(Way::Never("a rootless node maps one id, and no capability reaches an id that is not mapped")),
    Attempt::new("give_a_file_away", "gives a file of its own to somebody else", &[Caps, Userns], |_| {
        with_file(|path| Ok(chown(path, Some(OTHER_UID), None)?))
    })
    .rootless(Way::Never("a rootless node maps one id, and no capability reaches an id that is not mapped"))
    .inside_only(),
    Attempt::new("pass_by_a_mode", "reads a file whose mode lets nobody", &[Caps], |_| {
        with_file(|path| {
            fs::set_permissions(path, PermissionsExt::from_mode(0o000))?;
            fs::read(path)?;
            Ok(())
        })
    }),
    Attempt::new(
        "set_a_trusted_attribute",
        "writes what the host's file systems trust",
        &[Caps, Userns],
        |_| with_file(|path| Ok(rustix::fs::setxattr(path, "trusted.bailiwick", b"x", XattrFlags::empty())?)),
    )
    .rootless(NEEDS_THE_HOSTS_RIGHT)
    .inside_only(),
    Attempt::new("use_an_old_personality", "switches off that its addresses are random", &[Seccomp], |_| {
        // SAFETY: a number; it holds for this process alone.
        unsafe { call(libc::SYS_personality, [libc::ADDR_NO_RANDOMIZE as u64, 0, 0, 0, 0]) }?;
        Ok(())
    }),
];

const KEEPS_NOTHING: Way = Way::Never("without capabilities there is nothing to keep over a change of ids");
const NEVER_BACK: Way = Way::Never("the kernel knows no way back from it, whoever asks");

fn control(arguments: [u64; 5]) -> Result<(), Failure> {
    // SAFETY: numbers only.
    unsafe { call(libc::SYS_prctl, arguments) }?;
    Ok(())
}

/// A file of its own in its own folder.
fn with_file(work: impl FnOnce(&str) -> Result<(), Failure>) -> Result<(), Failure> {
    let path = format!("/tmp/bailiwick-own-{}", std::process::id());
    fs::write(&path, "x")?;
    let result = work(&path);
    fs::remove_file(&path)?;
    result
}
