//! One name in a layer or in the folder below it: what it is, whether two are the same.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, Stat, fgetxattr, flistxattr, openat, readlinkat, statat},
    io::Errno,
};

use super::Kind;

/// Bytes of an attribute's value, and of the names of all: the kernel's own limits.
const ATTRIBUTE_BYTES_MAX: usize = 64 * 1024;
/// Bytes compared at once.
const PIECE_BYTES: usize = 64 * 1024;
const MARKS: &[u8] = b"user.overlay.";
/// Attributes that are carried over. Labels and capabilities (`security.*`) are the host's to give.
const CARRIED: [&[u8]; 3] = [b"user.", b"system.posix_acl_access", b"system.posix_acl_default"];
pub(super) const PERMISSIONS: u32 = 0o7777;
const SET_ID: u32 = 0o6000;

/// Of a name; none where there is nothing.
pub(super) fn look(folder: &OwnedFd, name: &[u8]) -> io::Result<Option<Stat>> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn kind(stat: &Stat) -> Kind {
    match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::RegularFile => Kind::File,
        rustix::fs::FileType::Directory => Kind::Folder,
        rustix::fs::FileType::Symlink => Kind::Symlink,
        rustix::fs::FileType::Fifo => Kind::Fifo,
        rustix::fs::FileType::Socket => Kind::Socket,
        _ => Kind::Device,
    }
}

pub(super) fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & PERMISSIONS
}

/// A file that runs as its owner.
pub(super) fn sets_id(stat: &Stat) -> bool {
    kind(stat) == Kind::File && stat.st_mode & SET_ID != 0
}

pub(super) fn open(folder: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(openat(folder, name, flags, Mode::empty())?)
}

pub(super) fn open_folder(folder: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(folder, name, flags, Mode::empty())?)
}

/// Names in a folder, in order.
pub(crate) fn names(folder: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A device number 0, or an empty file with the attribute that nested overlays use.
pub(super) fn is_whiteout(folder: &OwnedFd, name: &[u8], stat: &Stat) -> io::Result<bool> {
    match kind(stat) {
        Kind::Device => Ok(stat.st_rdev == 0),
        Kind::File if stat.st_size == 0 => {
            Ok(attribute(&open(folder, name)?, b"user.overlay.whiteout")?.is_some())
        }
        _ => Ok(false),
    }
}

/// What the folder below has at this place is not seen.
pub(super) fn is_opaque(folder: &OwnedFd) -> io::Result<bool> {
    Ok(attribute(folder, b"user.overlay.opaque")?.is_some_and(|value| value == b"y"))
}

/// It stands for something of the folder below that was copied when it was changed.
pub(super) fn was_copied(file: &OwnedFd) -> io::Result<bool> {
    Ok(attribute(file, b"user.overlay.origin")?.is_some())
}

/// A folder that was moved or a file without its content: the mounts made here never leave any.
pub(super) fn has_unknown_mark(file: &OwnedFd) -> io::Result<bool> {
    let redirected = attribute(file, b"user.overlay.redirect")?.is_some();
    Ok(redirected || attribute(file, b"user.overlay.metacopy")?.is_some())
}

fn attribute(file: &OwnedFd, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; ATTRIBUTE_BYTES_MAX];
    match fgetxattr(file, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Attributes that are carried over, in order.
pub(super) fn attributes(file: &OwnedFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = vec![0; ATTRIBUTE_BYTES_MAX];
    let length = match flistxattr(file, &mut list[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    list.truncate(length);
    let carried =
        |name: &&[u8]| CARRIED.iter().any(|start| name.starts_with(start)) && !name.starts_with(MARKS);
    let mut found = Vec::new();
    for name in list.split(|byte| *byte == 0).filter(carried) {
        if let Some(value) = attribute(file, name)? {
            found.push((name.to_vec(), value));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether a commit of the one over the other would change nothing but times. Folders are compared without what is in
/// them.
pub(super) fn same(
    (upper, above): (&OwnedFd, &Stat),
    (base, below): (&OwnedFd, &Stat),
    name: &[u8],
) -> io::Result<bool> {
    if kind(above) != kind(below) {
        return Ok(false);
    }
    match kind(above) {
        Kind::Symlink => Ok(readlinkat(upper, name, Vec::new())? == readlinkat(base, name, Vec::new())?),
        Kind::Folder => Ok(permissions(above) == permissions(below)),
        Kind::Fifo => Ok(permissions(above) == permissions(below)),
        Kind::File => {
            if permissions(above) != permissions(below) || above.st_size != below.st_size {
                return Ok(false);
            }
            let (one, other) = (open(upper, name)?, open(base, name)?);
            Ok(attributes(&one)? == attributes(&other)? && same_content(one.into(), other.into())?)
        }
        Kind::Device | Kind::Socket => Ok(false),
    }
}

fn same_content(one: File, other: File) -> io::Result<bool> {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        for (file, piece) in [(&one, &mut left), (&other, &mut right)] {
            piece.clear();
            file.take(PIECE_BYTES as u64).read_to_end(piece)?;
        }
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}
