//! Removes trees of any depth.

use std::{io, os::fd::OwnedFd};

use rustix::{
    fs::{AtFlags, Mode, fchmod, renameat, unlinkat},
    io::Errno,
};

use super::{Kind, entry};

/// Everything in a folder. Folders are moved up into it before they are emptied, so that no depth is too deep.
pub(crate) fn everything(top: &OwnedFd) -> io::Result<()> {
    let mut names = entry::names(top)?;
    let mut counter = 0_u64;
    while let Some(name) = names.pop() {
        let Some(stat) = entry::look(top, &name)? else { continue };
        if entry::kind(&stat) != Kind::Folder {
            gone(unlinkat(top, &name, AtFlags::empty()))?;
            continue;
        }
        let folder = open_mine(top, &name)?;
        for inner in entry::names(&folder)? {
            match unlinkat(&folder, &inner, AtFlags::empty()) {
                Ok(()) => {}
                Err(Errno::ISDIR | Errno::PERM) => {
                    let to = loop {
                        let to = format!("removed-{counter}").into_bytes();
                        counter += 1;
                        if entry::look(top, &to)?.is_none() {
                            break to;
                        }
                    };
                    // A folder is moved only by who may write to it: its `..` changes.
                    let _ = open_mine(&folder, &inner)?;
                    renameat(&folder, &inner, top, &to)?;
                    names.push(to);
                }
                Err(error) => return Err(error.into()),
            }
        }
        gone(unlinkat(top, &name, AtFlags::REMOVEDIR))?;
    }
    Ok(())
}

/// One name of a folder, with everything below it.
pub(crate) fn one(folder: &OwnedFd, name: &[u8]) -> io::Result<()> {
    match entry::look(folder, name)? {
        None => Ok(()),
        Some(stat) if entry::kind(&stat) == Kind::Folder => {
            everything(&open_mine(folder, name)?)?;
            Ok(unlinkat(folder, name, AtFlags::REMOVEDIR)?)
        }
        Some(_) => Ok(unlinkat(folder, name, AtFlags::empty())?),
    }
}

/// A folder whose owner took its own rights away gets them back.
fn open_mine(folder: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let opened = match entry::open_folder(folder, name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            rustix::fs::chmodat(folder, name, Mode::RWXU, AtFlags::empty())?;
            entry::open_folder(folder, name)?
        }
        opened => opened?,
    };
    // Of another owner it cannot be changed, and then need not be.
    let _ = fchmod(&opened, Mode::RWXU);
    Ok(opened)
}

fn gone(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
